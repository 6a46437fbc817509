//! The signing time of a request, from the query.
//!
//! WeChat signs the sorted parts joined without a separator. One signature may therefore also fit other parts:
//! timestamp and nonce swapped, or the boundary shifted. A [`SigningStamp`] has only one form, and [`SigningStamp::other_times`]
//! returns the times that the same signature could claim.

use super::{CallbackCheckError, Query, query::present};

/// The number of digits of seconds since 1970, from 2001 to 2286.
const DIGITS: usize = 10;
/// WeChat's nonces are numbers of at most ten digits; tools that imitate WeChat's callbacks also use letters.
const LONGEST_NONCE: usize = 64;

/// The timestamp and the nonce of a callback, each in its only form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningStamp {
    timestamp: String,
    nonce: String,
    signed_at: i64,
}

impl Query {
    /// The signing time and the nonce of the callback.
    pub fn stamp(&self) -> Result<SigningStamp, CallbackCheckError> {
        let timestamp = present(self.timestamp.as_ref(), "timestamp")?;
        let signed_at = seconds(timestamp).ok_or(CallbackCheckError::Timestamp)?;
        let nonce = present(self.nonce.as_ref(), "nonce")?;
        let is_plain = nonce.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_plain && (1..=LONGEST_NONCE).contains(&nonce.len()) {
            Ok(SigningStamp {
                timestamp: timestamp.to_owned(),
                nonce: nonce.to_owned(),
                signed_at,
            })
        } else {
            Err(CallbackCheckError::Nonce)
        }
    }
}

impl SigningStamp {
    /// The signing time of the callback, in seconds since 1970.
    pub fn signed_at(&self) -> i64 {
        self.signed_at
    }

    /// The other times that the same signature could claim. The signature covers the sorted and joined parts, so
    /// another reading may have the timestamp at the other end.
    pub fn other_times(&self) -> impl Iterator<Item = i64> {
        let mut parts = [self.timestamp.as_str(), self.nonce.as_str()];
        parts.sort_unstable();
        let joined = parts.concat();
        let ends = [DIGITS, joined.len().saturating_sub(DIGITS)];
        let times = ends.map(|end| {
            let (first, last) = joined.split_at_checked(end)?;
            // Parts in another order would be joined the other way round.
            let is_sorted = !first.is_empty() && !last.is_empty() && first <= last;
            let claimed = if end == DIGITS { first } else { last };
            seconds(claimed).filter(|_| is_sorted)
        });
        // With twenty digits, both ends split at the same place.
        let both = (joined.len() == 2 * DIGITS && parts[0] <= parts[1])
            .then(|| seconds(joined.get(DIGITS..)?))
            .flatten();
        let own = self.signed_at;
        times
            .into_iter()
            .chain([both])
            .flatten()
            .filter(move |time| *time != own)
    }
}

/// Parses a timestamp in the only valid form: ten digits without a leading zero.
fn seconds(text: &str) -> Option<i64> {
    let is_canonical = text.len() == DIGITS
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && !text.starts_with('0');
    is_canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(timestamp: &str, nonce: &str) -> Query {
        Query {
            timestamp: Some(timestamp.to_owned()),
            nonce: Some(nonce.to_owned()),
            ..Query::default()
        }
    }

    fn others(timestamp: &str, nonce: &str) -> Vec<i64> {
        let stamp = query(timestamp, nonce).stamp().unwrap();
        let mut others: Vec<_> = stamp.other_times().collect();
        others.dedup();
        others
    }

    #[test]
    fn a_timestamp_is_ten_digits() {
        let at = |text: &str| query(text, "1").stamp().map(|stamp| stamp.signed_at());
        assert_eq!(at("1714036504"), Ok(1_714_036_504));
        for wrong in [
            "soon",
            "",
            "0",
            "171403650",
            "17140365040",
            "0714036504",
            "01714036504",
            "+714036504",
            "+1714036504",
            "-714036504",
            " 714036504",
            "1714036504 ",
            "１714036504",
            "1714036504.0",
            "1e9",
            "0x66290000",
        ] {
            assert_eq!(at(wrong), Err(CallbackCheckError::Timestamp), "{wrong:?}");
        }
        assert_eq!(
            Query::default().stamp(),
            Err(CallbackCheckError::Missing("timestamp"))
        );
    }

    #[test]
    fn a_nonce_is_a_short_word() {
        let of = |nonce: &str| query("1714036504", nonce).stamp().map(drop);
        for right in ["1", "1514711492", "a1B2", &"9".repeat(64)] {
            assert_eq!(of(right), Ok(()), "{right}");
        }
        for wrong in ["", " ", "1 2", "1\n", "ä", "-1", "a=b", &"9".repeat(65)] {
            assert_eq!(of(wrong), Err(CallbackCheckError::Nonce), "{wrong:?}");
        }
        let none = Query {
            nonce: None,
            ..query("1714036504", "")
        };
        assert_eq!(none.stamp(), Err(CallbackCheckError::Missing("nonce")));
    }

    #[test]
    fn what_else_a_signature_could_claim() {
        // Timestamp and nonce swapped.
        assert_eq!(others("1714036504", "1514711492"), [1_514_711_492]);
        assert_eq!(others("1514711492", "1714036504"), [1_714_036_504]);
        // 1714036504|9 is also 1|7140365049.
        assert_eq!(others("1714036504", "9"), [7_140_365_049]);
        // No other reading is valid.
        assert!(others("1714036504", "1714036504").is_empty());
        assert!(others("1714036504", "abc").is_empty());
        // The boundary is shifted: 1714036504|17999999001 is also 17140365041|7999999001.
        assert_eq!(others("1714036504", "17999999001"), [7_999_999_001]);
        // A nonce that sorts first and is longer than a time: the nonce begins with 1114036504.
        assert_eq!(others("1714036504", "11140365047"), [1_114_036_504]);
    }

    /// The times include the time of every other reading of the signed text.
    #[test]
    fn no_other_reading_is_forgotten() {
        let texts = [
            "1714036504",
            "1514711492",
            "17140365041",
            "12",
            "99999999999999999999",
            "1111111111111",
            "171403650417140365",
        ];
        for nonce in texts {
            let stamp = query("1714036504", nonce).stamp().unwrap();
            let mut parts = ["1714036504", nonce];
            parts.sort_unstable();
            let joined = parts.concat();
            let found: Vec<_> = stamp.other_times().collect();
            for end in 1..joined.len() {
                let (first, last) = joined.split_at(end);
                if first > last {
                    continue;
                }
                for (time, nonce) in [(first, last), (last, first)] {
                    if let Ok(other) = query(time, nonce).stamp()
                        && other.signed_at() != stamp.signed_at()
                    {
                        assert!(found.contains(&other.signed_at()), "{joined} {end}");
                    }
                }
            }
        }
    }
}
