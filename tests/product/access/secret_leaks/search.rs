//! The search: secrets and evidence.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// The number of leading bytes by which a needle is found.
const START: usize = 8;

/// The values that must not appear in the evidence.
#[derive(Default)]
pub(super) struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    /// Adds a secret, with the name of its kind.
    pub(super) fn add(&mut self, name: &'static str, value: &[u8]) {
        assert!(
            value.len() >= 16,
            "{name} is too short to be told from chance"
        );
        if !self.0.iter().any(|(_, known)| known == value) {
            self.0.push((name, value.to_vec()));
        }
    }

    /// All forms of all secrets to search for, with the names.
    fn needles(&self) -> Vec<(&'static str, Vec<u8>)> {
        let each = self
            .0
            .iter()
            .flat_map(|(name, value)| forms(value).into_iter().map(move |form| (*name, form)));
        each.collect()
    }
}

/// The forms of a value: raw, percent-encoded, hex, and base64 at all three alignments.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| -> String {
        let digits = value.iter().map(|byte| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        });
        digits.collect()
    };
    let escaped: String = value
        .iter()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => {
                char::from(*byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let mut forms = vec![value.to_vec(), escaped.into_bytes()];
    forms.extend([hex(false).into_bytes(), hex(true).into_bytes()]);
    for skipped in 0..3 {
        let rest = &value[skipped..];
        let whole = &rest[..rest.len() - rest.len() % 3];
        let base64 = BASE64_STANDARD_NO_PAD.encode(whole);
        forms.push(base64.replace('+', "-").replace('/', "_").into_bytes());
        forms.push(base64.into_bytes());
    }
    forms
}

/// Collected outputs and stored data, each with a name.
#[derive(Default)]
pub(super) struct Evidence(Vec<(String, String)>);

impl Evidence {
    /// Adds a text.
    pub(super) fn keep(&mut self, name: &str, text: String) {
        self.0.push((name.to_owned(), text));
    }

    /// The texts with a name that begins with `start`.
    pub(super) fn named(&self, start: &str) -> impl Iterator<Item = &(String, String)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(start))
    }

    /// The first occurrence of each kind of secret in each text, with the surrounding text.
    pub(super) fn search(&self, secrets: &Secrets) -> Vec<String> {
        let needles = secrets.needles();
        let mut by_start: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (number, (_, needle)) in needles.iter().enumerate() {
            by_start.entry(&needle[..START]).or_default().push(number);
        }
        let (mut leaks, mut found) = (Vec::new(), HashSet::new());
        for (name, text) in &self.0 {
            let bytes = text.as_bytes();
            for (at, start) in bytes.windows(START).enumerate() {
                let Some(numbers) = by_start.get(start) else {
                    continue;
                };
                let hit = numbers
                    .iter()
                    .find(|number| bytes[at..].starts_with(&needles[**number].1));
                if let Some(number) = hit
                    && found.insert((needles[*number].0, name))
                {
                    let around = &bytes[at.saturating_sub(200)..(at + 80).min(bytes.len())];
                    let around = String::from_utf8_lossy(around);
                    leaks.push(format!("{} in {name}: …{around}…", needles[*number].0));
                }
            }
        }
        leaks
    }
}

/// Records all commands that a Redis server gets.
pub(super) struct Monitor {
    heard: Arc<Mutex<Vec<u8>>>,
    _listener: JoinSet<()>,
}

impl Monitor {
    pub(super) async fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("Redis");
        stream.write_all(b"MONITOR\r\n").await.expect("Redis");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (mut listener, ear) = (JoinSet::new(), Arc::clone(&heard));
        listener.spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut piece).await {
                let mut heard = ear.lock().unwrap_or_else(PoisonError::into_inner);
                heard.extend_from_slice(&piece[..read]);
            }
        });
        Self {
            heard,
            _listener: listener,
        }
    }

    /// The recorded commands so far.
    pub(super) fn said(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

#[test]
fn what_is_there_is_found_in_every_form() {
    let secret = b"c63e9f21-b5d0+748/ac63";
    let mut secrets = Secrets::default();
    secrets.add("it", secret);
    for form in forms(secret) {
        let mut evidence = Evidence::default();
        let text = format!("before{}after", String::from_utf8_lossy(&form));
        evidence.keep("a place", text);
        assert_eq!(evidence.search(&secrets).len(), 1);
    }
    for before in ["", "x", "xx"] {
        let mut evidence = Evidence::default();
        let whole = [before.as_bytes(), secret, b" and more"].concat();
        evidence.keep("a place", BASE64_STANDARD_NO_PAD.encode(whole));
        assert_eq!(evidence.search(&secrets).len(), 1, "{before:?}");
    }
    let mut evidence = Evidence::default();
    evidence.keep("a place", "c63e9f21 alone is no secret".into());
    assert!(evidence.search(&secrets).is_empty());
}
