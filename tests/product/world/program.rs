//! The real binary, in a separate process.

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

/// A command for `wxgate`, built beside this test. The command inherits no setting of the machine.
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

/// Gives a command a wall clock of its own. The library reads the offset in seconds from `file` at every clock call.
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

/// `target/debug/deps/product-…` → `target/debug/wxgate`. Refuses a binary that is older than one of the sources in
/// cargo's list: such a binary would test outdated code.
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

/// The result of a command.
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

    /// Asserts the exit code and returns the result.
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

    /// The JSON that a command with `--json` printed.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let out = self.stdout();
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{}: {error}: {out}", self.command))
    }
}

/// A port on which no program listens at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A process that runs until the test kills or drops the handle. The output goes to a file.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with standard output and standard error in the file `log`.
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

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The output so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the gateway in the process is ready.
    pub(crate) async fn wait_ready(&mut self, url: &str) {
        self.wait_for(&format!("{url}/readyz")).await;
    }

    /// Waits until the gateway in the process answers, ready or not.
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

    /// The content of this file in the folder of the process under `/proc`.
    pub(crate) fn process_file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(path).expect("a process")
    }

    /// A size in MiB: `VmRSS`, the present memory of the process, or `VmHWM`, the peak.
    pub(crate) fn mib(&self, what: &str) -> u64 {
        let status = self.process_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") / 1024
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    /// Sends SIGTERM, as a supervisor would, and waits for the end of the process. Returns the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.ask_to_stop();
        self.child.wait().expect("its end").code()
    }

    /// As [`Running::terminate`], without blocking the test.
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

    /// Panics if the process has ended.
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
