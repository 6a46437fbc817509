//! A private Redis server.

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

/// A running Redis that stores nothing on disk. Ends when dropped or when the test process ends.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    folder: Folder,
    /// Settings in addition to the common settings of all servers.
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

    /// Like [`start`](Self::start), but as a cluster of one server that has no slots yet.
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

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port of the server, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server at once: connections break, and all data is lost.
    pub fn kill(&self) {
        self.process.end(Signal::SIGKILL);
    }

    /// Starts the server again on the same port and without data, and kills a running server first.
    ///
    /// # Panics
    ///
    /// If the server does not start; the panic shows the server's log.
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

    /// Makes the server answer no client for `time`. Connections stay open, and the server executes the commands
    /// afterwards.
    ///
    /// # Panics
    ///
    /// If the server does not run.
    pub fn stall(&self, time: Duration) {
        self.tell(&format!("CLIENT PAUSE {} ALL", time.as_millis()));
    }

    /// Stops the server's process, like a machine that hangs: connections stay open, new connections succeed, and the
    /// server answers nothing.
    pub fn freeze(&self) {
        self.process.send(Signal::SIGSTOP);
    }

    /// Continues the stopped process.
    pub fn thaw(&self) {
        self.process.send(Signal::SIGCONT);
    }

    /// Deletes all data of the server. Connections stay open.
    ///
    /// # Panics
    ///
    /// If the server does not run.
    pub fn empty(&self) {
        self.tell("FLUSHALL");
    }

    /// All data of the server in the format of Redis's dump file, uncompressed.
    ///
    /// # Panics
    ///
    /// If the server does not run.
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

    /// Sends a command and returns the first line of the answer.
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
