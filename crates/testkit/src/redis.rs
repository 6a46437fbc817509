//! A Redis server of one's own.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use crate::{
    folder::Folder,
    process::{Process, Signal, command, free_port},
};

/// A running Redis that keeps nothing on disk. Ends when dropped or when the process ends.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    folder: Folder,
    /// Its settings beside those that every one has.
    settings: &'static [&'static str],
}

impl Redis {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// If Redis is not installed, or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), as a cluster of one server that has no slots yet.
    pub fn start_cluster() -> Self {
        Self::start_with(&["--cluster-enabled", "yes"])
    }

    fn start_with(settings: &'static [&'static str]) -> Self {
        let folder = Folder::new("wxgate-redis-");
        let server = Self {
            process: Process::default(),
            port: free_port(),
            folder,
            settings,
        };
        server.restart();
        server
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port it listens on; stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once: connections break, and everything in it is lost.
    pub fn kill(&self) {
        self.process.end(Signal::SIGKILL);
    }

    /// Starts it again on the same port, empty, killing it first if it runs.
    ///
    /// # Panics
    ///
    /// If it does not start: with the server's log.
    pub fn restart(&self) {
        self.kill();
        let mut redis = command(Path::new("redis-server"), None);
        redis.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        redis
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .args(self.settings);
        if let Err(log) = self
            .process
            .start(redis, &self.folder.path().join("log"), || self.answers())
        {
            panic!("Redis did not start (is it installed? `make setup`): {log}");
        }
    }

    /// Keeps it from answering anybody for so long. Connections stay, and what is asked meanwhile is done afterwards.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn stall(&self, time: Duration) {
        self.tell(&format!("CLIENT PAUSE {} ALL", time.as_millis()));
    }

    /// Stops its process, as a machine that hangs: connections stay and are taken, and nothing is answered.
    pub fn freeze(&self) {
        self.process.send(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.send(Signal::SIGCONT);
    }

    /// Takes everything out of it. Connections stay.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn empty(&self) {
        self.tell("FLUSHALL");
    }

    /// Everything that is in it, as its own file has it, with nothing compressed.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn dump(&self) -> Vec<u8> {
        self.tell("CONFIG SET rdbcompression no");
        self.tell("SAVE");
        match std::fs::read(self.folder.path().join("dump.rdb")) {
            Ok(dump) => dump,
            Err(error) => panic!("Redis saved nothing: {error}"),
        }
    }

    fn tell(&self, words: &str) {
        let answer = self.ask(words);
        assert!(
            answer.as_ref().is_ok_and(|answer| answer == "+OK"),
            "Redis does not do `{words}`: {answer:?}"
        );
    }

    fn answers(&self) -> bool {
        self.ask("PING").is_ok_and(|answer| answer == "+PONG")
    }

    /// The one line that it answers.
    fn ask(&self, words: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("{words}\r\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_on_the_same_port() {
        let server = Redis::start();
        let url = server.url();
        server.kill();
        assert!(!server.answers());
        server.restart();
        assert!(server.answers() && server.url() == url);
    }
}
