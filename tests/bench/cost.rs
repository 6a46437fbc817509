//! What a measurement costs: processor time of everything that the benchmark runs on, and memory.

use std::{collections::HashMap, fs, time::Duration};

/// The kernel's unit of processor time in `/proc`, on every Linux of today.
const TICKS_PER_SECOND: u64 = 100;
/// Fields of `/proc/PID/stat` after the name, which may hold blanks: see `proc_pid_stat(5)`.
const PARENT: usize = 1;
const USER: usize = 11;
/// The kernel's work for the process, and the time of its children that have ended.
const OTHERS: [usize; 3] = [12, 13, 14];

/// Processor time so far, by the processes that used that time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// The load, the gateway and the simulator.
    here: u64,
    /// PostgreSQL and Redis.
    servers: u64,
}

/// Processor time for each of a number of messages, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuEach {
    /// Of the load, the gateway and the simulator.
    pub(crate) here: u64,
    /// Of PostgreSQL and Redis.
    pub(crate) servers: u64,
}

impl Cpu {
    /// Reads the processor time of this process and of all its descendants.
    pub(crate) fn now() -> Self {
        let mut parents = HashMap::new();
        let mut spent = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            // When a process ends during the read, its parent gets the time.
            let Some((id, fields)) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
                .and_then(|id| Some((id, stat(id)?)))
            else {
                continue;
            };
            parents.insert(id, u32::try_from(fields[PARENT]).unwrap_or(0));
            let ticks = fields[USER] + OTHERS.iter().map(|&field| fields[field]).sum::<u64>();
            spent.insert(id, ticks);
        }
        let this = std::process::id();
        let mut cpu = Self::default();
        for (&id, &ticks) in &spent {
            if id == this {
                cpu.here = ticks;
            } else if descends(id, this, &parents) {
                cpu.servers += ticks;
            }
        }
        cpu
    }

    /// The processor time since `self`, for each of `count` messages.
    pub(crate) fn each(self, count: usize) -> CpuEach {
        let now = Self::now();
        let micros = |after: u64, before: u64| {
            let spent = Duration::from_millis((after - before) * 1000 / TICKS_PER_SECOND);
            u64::try_from(spent.as_micros()).unwrap_or(u64::MAX) / (count as u64).max(1)
        };
        CpuEach {
            here: micros(now.here, self.here),
            servers: micros(now.servers, self.servers),
        }
    }
}

impl CpuEach {
    /// Of all processes.
    pub(crate) fn total(self) -> u64 {
        self.here + self.servers
    }
}

/// This process's memory in MiB that is not backed by files: the database's mapped pages belong to the kernel.
pub(crate) fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn stat(id: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let fields = fields.split_whitespace();
    let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > OTHERS[2]).then_some(fields)
}

fn descends(mut id: u32, ancestor: u32, parents: &HashMap<u32, u32>) -> bool {
    while let Some(&parent) = parents.get(&id) {
        if parent == ancestor {
            return true;
        }
        id = parent;
    }
    false
}
