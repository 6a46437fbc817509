//! One child process that ends with the test process.

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

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A server process, running or not.
#[derive(Debug, Default)]
pub(crate) struct Process(Mutex<Option<Child>>);

impl Process {
    /// Starts `program` and waits until `ready`. Says why, if it ends before.
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

    /// Ends the process with `signal` and waits until it is gone. Does nothing where none runs.
    pub(crate) fn end(&self, signal: Signal) {
        if let Some(mut child) = self.lock().take() {
            self::signal(child.id(), signal);
            let _ = child.wait();
        }
    }

    /// Sends it a signal that it survives. Does nothing where none runs.
    pub(crate) fn send(&self, signal: Signal) {
        if let Some(child) = self.lock().as_ref() {
            self::signal(child.id(), signal);
        }
    }

    /// `kill -9` of the process and of its children, which it can then no longer end itself. Does nothing where none
    /// runs.
    pub(crate) fn fail(&self) {
        let Some(id) = self.lock().as_ref().map(Child::id) else {
            return;
        };
        // One that stands still makes no more children.
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

    /// Sends `signal` to the process and to its children, which stay. Does nothing where none runs.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let Some(id) = self.lock().as_ref().map(Child::id) else {
            return;
        };
        // The parent first: one that is stopped makes no more children.
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
        // Fails when it has ended by itself.
        let _ = nix::sys::signal::kill(Pid::from_raw(id), signal);
    }
}

/// The children that a process has now.
fn children(id: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let listed = listed.unwrap_or_default();
    listed
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

/// Whether a process can still do anything. One whose new parent never asks for its end can not, but stays listed.
fn lives(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name before the state is in brackets and may hold anything.
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// A command that the kernel kills when the test process ends, and that does not run as root.
pub(crate) fn command(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user.filter(|_| Uid::effective().is_root()) {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Runs `command` to its end.
///
/// # Panics
///
/// If it fails: with what it said.
pub(crate) fn run(mut command: Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}; run `make setup`"),
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0));
    match listener.and_then(|listener| listener.local_addr()) {
        Ok(address) => address.port(),
        Err(error) => panic!("no free port on 127.0.0.1: {error}"),
    }
}

/// Spawns from a thread that never ends: "parent death" means the death of the spawning thread, and a test's
/// own thread ends with the test.
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
