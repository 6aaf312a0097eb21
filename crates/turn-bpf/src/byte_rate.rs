//! Rates as people type them: `650k`, `1.5M`, `1Mi`, in bytes per second.

use std::str::FromStr;

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(pub u64);

/// Not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// It cannot be read.
    #[error("not a number of bytes per second, such as 650000, 650k, 1.5M or 1Mi")]
    Unreadable,
    /// It is too small or too large.
    #[error("must be from {LEAST} to {MOST} bytes per second")]
    OutOfRange,
}

impl FromStr for ByteRate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let text = text.trim().trim_end_matches("/s").trim_end_matches('B');
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.strip_prefix(digits).unwrap_or_default();
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidRate::Unreadable)?;
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = digits.parse().ok().filter(|_| is_plain).ok_or(InvalidRate::Unreadable)?;
        let rate = (number * factor).round();
        if (LEAST as f64..=MOST as f64).contains(&rate) {
            Ok(Self(rate as u64))
        } else {
            Err(InvalidRate::OutOfRange)
        }
    }
}

const UNITS: [(&str, f64); 8] = [
    ("", 1.0),
    ("k", 1e3),
    ("K", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
];
const LEAST: u64 = 1000;
const MOST: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let right = [
            ("650000", 650_000),
            ("650k", 650_000),
            ("650kB", 650_000),
            ("650kB/s", 650_000),
            ("1.5M", 1_500_000),
            ("1Mi", 1_048_576),
            ("1MiB/s", 1_048_576),
            ("10G", 10_000_000_000),
            ("1000", 1000),
        ];
        for (text, rate) in right {
            assert_eq!(text.parse(), Ok(ByteRate(rate)), "{text}");
        }
        for text in ["", "k", "fast", "-1M", "1e6", "10 M", "1m", "1Mbit", "infinity", "NaN", "1.2.3k"] {
            assert_eq!(text.parse::<ByteRate>(), Err(InvalidRate::Unreadable), "{text:?}");
        }
        for text in ["0", "999", "0.5k", "1001G"] {
            assert_eq!(text.parse::<ByteRate>(), Err(InvalidRate::OutOfRange), "{text:?}");
        }
    }
}
