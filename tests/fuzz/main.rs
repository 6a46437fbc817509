//! Every function that reads bytes of strangers, fed with bytes.
//!
//! Each target of [`targets`] reads its corpus (`tests/fuzz/corpus/NAME`) and a bounded number of random changes of the
//! corpus. An input with a new kind of answer is changed further. An input that breaks a target is written to
//! `target/fuzz`: repair the code, then put the input into the corpus. `WXGATE_FUZZ_RUNS=n` tries more,
//! `WXGATE_TEST_SEED=n` repeats a run, and `make fuzz` continues with libFuzzer, which sees what the code does with an
//! input.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, its helpers too, and says what it saw"
)]

mod mutate;
mod targets;

use std::{
    collections::HashSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Instant,
};

use coord::Clock;
use mutate::Mutator;

/// Random inputs for each target, unless `WXGATE_FUZZ_RUNS` says otherwise.
const RUNS: u64 = 20_000;
/// The most inputs that are changed further.
const POOL: usize = 2_000;

fn fuzz(name: &str) {
    let target = targets::named(name);
    let corpus = corpus(name);
    assert!(corpus.len() > 2, "tests/fuzz/corpus/{name} is almost empty");
    let seed = number("WXGATE_TEST_SEED")
        .unwrap_or_else(|| u64::from(Clock::system().now().timestamp_subsec_nanos()));
    let runs = number("WXGATE_FUZZ_RUNS").unwrap_or(RUNS);
    let began = Instant::now();
    let mut answers = HashSet::new();
    let mut pool = Vec::new();
    for input in corpus {
        answers.insert(run(name, target, &input, seed));
        pool.push(input);
    }
    let known = answers.len();
    let mut mutator = Mutator::new(seed);
    for _ in 0..runs {
        let input = mutator.change(&pool);
        if answers.insert(run(name, target, &input, seed)) && pool.len() < POOL {
            pool.push(input);
        }
    }
    eprintln!(
        "{name}: {runs} inputs in {:?}, {} answers, {known} of them to the corpus (WXGATE_TEST_SEED={seed})",
        began.elapsed(),
        answers.len()
    );
}

/// The answer to one input. If the input breaks the target, the input is saved.
fn run(name: &str, target: targets::Target, input: &[u8], seed: u64) -> String {
    catch_unwind(AssertUnwindSafe(|| target(input))).unwrap_or_else(|_| {
        let folder = root().join("target/fuzz");
        fs::create_dir_all(&folder).unwrap();
        let kept = folder.join(format!("{name}-{seed}"));
        fs::write(&kept, input).unwrap();
        panic!(
            "{name} breaks on {} (WXGATE_TEST_SEED={seed}): {:?}",
            kept.display(),
            String::from_utf8_lossy(input)
        )
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seed of a test is no setting of the product"
)]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/fuzz/corpus").join(name);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

macro_rules! fuzzed {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        /// A target that no test runs finds nothing.
        #[test]
        fn every_target_is_run_here_and_by_libfuzzer() {
            let run = [$(stringify!($name)),*];
            let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, run);
            let manifest = root().join("tests/fuzz/libfuzzer/Cargo.toml");
            let manifest = fs::read_to_string(manifest).unwrap();
            for name in names {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
                let source = format!("tests/fuzz/libfuzzer/targets/{name}.rs");
                let source = fs::read_to_string(root().join(source)).unwrap();
                assert!(source.contains(&format!("\"{name}\"")), "{source}");
            }
        }
    };
}

fuzzed!(
    bodies,
    batches,
    callbacks,
    envelopes,
    cursors,
    ids,
    idempotency_keys,
    queries,
);

#[test]
fn what_breaks_a_target_is_found_and_kept() {
    fn breaks(input: &[u8]) -> String {
        assert!(!input.starts_with(b"{{"), "two braces");
        String::new()
    }
    let seed = 7;
    let broken = catch_unwind(|| {
        let mut mutator = Mutator::new(seed);
        for _ in 0..RUNS {
            run(
                "example",
                breaks,
                &mutator.change(&[b"{\"a\": 1}".to_vec()]),
                seed,
            );
        }
    });
    assert!(broken.is_err());
    let kept = root().join(format!("target/fuzz/example-{seed}"));
    assert!(fs::read(&kept).unwrap().starts_with(b"{{"));
    fs::remove_file(kept).unwrap();
}
