//! Failures of processes, databases, Redis, clocks, connections and WeChat.

mod broken_connections;
mod clock_skew;
mod database_and_redis;
mod database_refusals;
mod graceful_stop;
mod killed_gateway;
mod killed_replicas;
mod proxies;
mod restarts;
mod wechat_faults;
