//! A child process that ends with the test process.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

pub(crate) use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A server process, running or not.
#[derive(Debug, Default)]
pub(crate) struct Process(Mutex<Option<Child>>);

impl Process {
    /// Starts `command` and waits until `ready` returns true. Returns the log where the process ends before or takes too
    /// long.
    pub(crate) fn start(
        &self,
        command: Command,
        log: &Path,
        ready: impl Fn() -> bool,
    ) -> Result<(), String> {
        let mut child = spawn(command, log);
        let started = Instant::now();
        while !ready() {
            let ended = matches!(child.try_wait(), Ok(Some(_)));
            if ended || started.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(std::fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(LOOK_AGAIN);
        }
        *self.lock() = Some(child);
        Ok(())
    }

    /// Ends the process with `signal` and waits for the end. Does nothing where no process runs.
    pub(crate) fn end(&self, signal: Signal) {
        if let Some(mut child) = self.lock().take() {
            self::signal(child.id(), signal);
            let _ = child.wait();
        }
    }

    /// Sends the process a signal that the process survives. Does nothing where no process runs.
    pub(crate) fn send(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            self::signal(child.id(), signal);
        }
    }

    /// Kills the process and its children with `kill -9`; the killed process can no longer end its children itself. Does
    /// nothing where no process runs.
    pub(crate) fn fail(&self) {
        let Some(id) = self.lock().as_ref().map(Child::id) else {
            return;
        };
        // A stopped process starts no more children.
        signal(id, Signal::SIGSTOP);
        let children = children(id);
        self.end(Signal::SIGKILL);
        for child in &children {
            signal(*child, Signal::SIGKILL);
        }
        while children.iter().any(|child| lives(*child)) {
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends `signal` to the process and to its children, and keeps the process. Does nothing where no process runs.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let Some(id) = self.lock().as_ref().map(Child::id) else {
            return;
        };
        // The parent gets the signal first: a stopped parent starts no more children.
        self::signal(id, signal);
        for child in children(id) {
            self::signal(child, signal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(id: u32, signal: Signal) {
    if let Ok(id) = i32::try_from(id) {
        // The call fails where the process has ended by itself.
        let _ = nix::sys::signal::kill(Pid::from_raw(id), signal);
    }
}

/// The present children of a process.
fn children(id: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let listed = listed.unwrap_or_default();
    listed
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

/// Whether a process still runs. A zombie whose new parent never waits for it does not run, but stays listed.
fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name before the state is in brackets and may contain any character.
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// A command that the kernel kills when the test process ends, and that runs as `user` where the test process is root.
pub(crate) fn command(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user.filter(|_| Uid::effective().is_root()) {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Runs `command` to the end.
///
/// # Panics
///
/// If the command fails; the panic shows the error output.
pub(crate) fn run(mut command: Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}; run `make setup`"),
    }
}

/// A port on which no process listens at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    match listener.and_then(|listener| listener.local_addr()) {
        Ok(address) => address.port(),
        Err(error) => panic!("no free port on 127.0.0.1: {error}"),
    }
}

/// Spawns the process from a thread that never ends: the kernel's "parent death" means the death of the spawning thread,
/// and a test's own thread ends with the test.
fn spawn(mut command: Command, log: &Path) -> Child {
    match std::fs::File::create(log).and_then(|file| Ok((file.try_clone()?, file))) {
        Ok((out, err)) => command.stdin(Stdio::null()).stdout(out).stderr(err),
        Err(error) => panic!("cannot write {}: {error}", log.display()),
    };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(
            command
                .spawn()
                .map_err(|error| format!("{command:?}: {error}; run `make setup`")),
        );
        loop {
            thread::park();
        }
    });
    match told.recv() {
        Ok(Ok(child)) => child,
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("the spawning thread is gone: {error}"),
    }
}
