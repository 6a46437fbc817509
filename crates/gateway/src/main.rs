//! The binary: everything is in the library.

use std::process::ExitCode;

/// Faster than the system's under many threads, and it gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: rustls asks for it at the first TLS connection. An error means that it is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    wxgate::cli::main()
}
