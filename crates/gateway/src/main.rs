//! The binary. All code is in the library.

use std::process::ExitCode;

/// mimalloc: faster than the system's allocator under many threads, and returns memory to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Comes first: rustls needs the provider at the first TLS connection. An error means that a provider is already
    // installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    wxgate::cli::main()
}
