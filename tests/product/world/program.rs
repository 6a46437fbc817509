//! The real binary, as a process.

use std::{
    cell::RefCell,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use super::wait::eventually;

/// `wxgate`, built beside this test. A command for it has no setting of the machine's own.
pub(crate) fn wxgate(folder: &Path) -> Command {
    static BINARY: LazyLock<Result<PathBuf, String>> = LazyLock::new(find);
    let mut command = match &*BINARY {
        Ok(binary) => Command::new(binary),
        Err(remedy) => panic!("{remedy}: run `make test`, or `cargo build -p wxgate`"),
    };
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Puts a command under a wall clock of its own, which is as many seconds off as `file` says at every look.
pub(crate) fn with_clock(command: &mut Command, file: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("product/world/clock.c");
    let library = file.with_extension("so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
    let compiled = compiler.arg(&library).arg(source).status();
    assert!(
        compiled.is_ok_and(|status| status.success()),
        "a C compiler: run `make setup`"
    );
    command
        .env("LD_PRELOAD", library)
        .env("CLOCK_OFFSET_FILE", file);
}

/// `target/debug/deps/product-…` → `target/debug/wxgate`. One that is older than its sources, by cargo's own list of
/// them, would test what nobody wrote any more.
fn find() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = test.parent().unwrap_or(&test).with_file_name("wxgate");
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let shown = binary.display();
    let built = changed(&binary).ok_or_else(|| format!("there is no {shown}"))?;
    let sources = std::fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let newer = sources
        .split_whitespace()
        .find(|source| changed(Path::new(source)) > Some(built));
    match newer {
        Some(source) => Err(format!("{shown} is older than {source}")),
        None => Ok(binary),
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Ended {
    let output = command.output().expect("wxgate runs");
    Ended {
        command: format!("{command:?}"),
        output,
    }
}

/// What a command came to.
pub(crate) struct Ended {
    command: String,
    output: Output,
}

impl Ended {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let (out, err) = (self.stdout(), self.stderr());
        assert_eq!(
            self.output.status.code(),
            Some(code),
            "{}\nstdout: {out}\nstderr: {err}",
            self.command
        );
        self
    }

    /// What it printed under `--json`.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let out = self.stdout();
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{}: {error}: {out}", self.command))
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A process that runs until it is killed or dropped; what it says goes into a file.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`, which logs to `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log file");
        let both = file.try_clone().expect("the log file once more");
        let child = command
            .stdout(file)
            .stderr(both)
            .spawn()
            .expect("wxgate starts");
        Self { child, log }
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the gateway in it takes requests.
    pub(crate) async fn wait_ready(&mut self, url: &str) {
        self.wait_for(&format!("{url}/readyz")).await;
    }

    /// Waits until the gateway in it answers, ready or not.
    pub(crate) async fn wait_alive(&mut self, url: &str) {
        self.wait_for(&format!("{url}/healthz")).await;
    }

    async fn wait_for(&mut self, url: &str) {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .no_proxy()
            .build()
            .expect("an HTTP client");
        let running = RefCell::new(self);
        eventually(url, || {
            running.borrow_mut().assert_runs();
            let asked = http.get(url).send();
            async { asked.await.ok()?.error_for_status().ok().map(drop) }
        })
        .await;
    }

    /// What the system says of it in this file of its folder under `/proc`.
    pub(crate) fn process_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(path).expect("a process")
    }

    /// So many MiB: `VmRSS`, the memory that it holds, or `VmHWM`, the most that it has held.
    pub(crate) fn mib(&self, what: &str) -> u64 {
        let status = self.process_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") / 1024
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Asks it to stop, as a supervisor would, and waits for its end.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.ask_to_stop();
        self.child.wait().expect("its end").code()
    }

    /// As [`Running::terminate`], for a test that goes on meanwhile.
    pub(crate) async fn wait_terminated(&mut self) -> Option<i32> {
        self.ask_to_stop();
        let child = RefCell::new(&mut self.child);
        let ended = eventually("wxgate has ended", || {
            let ended = child.borrow_mut().try_wait().expect("a child");
            async move { ended }
        });
        ended.await.code()
    }

    fn ask_to_stop(&self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)
            .expect("a process to stop");
    }

    /// Panics if it has ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("wxgate ended with {status}: {}", self.said());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("wxgate said:\n{}", self.said());
        }
    }
}
