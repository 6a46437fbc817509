//! Random changes of inputs.

/// The longest generated input: longer inputs take time and find nothing new.
const LONGEST: usize = 8 * 1024;

/// Words that have a meaning to the readers.
const WORDS: [&str; 44] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "0.1",
    "18446744073709551616",
    "9223372036854775807",
    "{\"a\":",
    "[[[[[[[[",
    "<xml>",
    "</xml>",
    "<a/>",
    "<![CDATA[",
    "]]>",
    "&amp;",
    "&#x0;",
    "&#x10FFFF;",
    "<!DOCTYPE x [<!ENTITY a \"b\">]>",
    "<?xml?>",
    "\u{feff}",
    "\u{0}",
    "保温杯",
    "e\u{301}",
    "\u{202e}",
    "%00",
    "%",
    "+",
    "=",
    "&",
    ".",
    "_",
    "2026-02-30T25:61:61Z",
    "+999999-01-01T00:00:00Z",
    "msg_",
    "7zzzzzzzzzzzzzzzzzzzzzzzzz",
];

/// Makes inputs from other inputs; the same seed gives the same inputs.
pub(crate) struct Mutator(u64);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `pool` with one to eight changes.
    pub(crate) fn change(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(8) {
            self.change_once(&mut input, pool);
        }
        input.truncate(LONGEST);
        input
    }

    fn change_once(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.byte(),
            2 => input.insert(at, self.byte()),
            3 => {
                let until = self.end(at, input.len(), 16);
                input.drain(at..until);
            }
            4 => {
                let until = self.end(at, input.len(), 64);
                let piece = input[at..until].repeat(1 + self.below(8));
                input.splice(at..at, piece);
            }
            5 | 6 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            7 => {
                let other = &pool[self.below(pool.len())];
                let from = self.below(other.len() + 1);
                let until = self.end(from, other.len(), 256);
                let gone = self.end(at, input.len(), 64);
                input.splice(at..gone, other[from..until].iter().copied());
            }
            _ => self.change_number(input, at),
        }
    }

    /// Replaces the next number with another.
    fn change_number(&mut self, input: &mut Vec<u8>, at: usize) {
        let digits = |input: &[u8], from: usize| {
            let rest = input[from..].iter();
            rest.take_while(|byte| byte.is_ascii_digit()).count()
        };
        let start = (at..input.len()).find(|place| input[*place].is_ascii_digit());
        if let Some(start) = start {
            let length = digits(input, start);
            let number = self.next() >> self.below(64);
            input.splice(start..start + length, number.to_string().into_bytes());
        }
    }

    fn end(&mut self, from: usize, length: usize, most: usize) -> usize {
        from + self.below((length - from).min(most) + 1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }
}
