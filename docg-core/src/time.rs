//! Points in time, durations, and the clock that the engine is given.

use std::{fmt, ops::Add, str::FromStr, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::{sync::watch, time::Instant};

/// The longest duration that docg takes from outside, in milliseconds: ten years.
pub const MAX_DURATION_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// [`MAX_DURATION_MS`] as a [`Duration`].
pub const MAX_DURATION: Duration = Duration::from_millis(MAX_DURATION_MS);

/// A moment in the years 1 to 9999: milliseconds since the Unix epoch, UTC. On the wire: RFC 3339
/// with `Z` and milliseconds.
///
/// There is no moment outside these years, so every stored moment can be written and read again.
/// Numbers and arithmetic stop at the ends; a text that names a moment beyond them is refused.
///
/// ```
/// use docg_core::time::Timestamp;
///
/// assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
/// assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
/// assert!("9999-12-31T23:59:59-01:00".parse::<Timestamp>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first moment of the year 1.
    pub const MIN: Self = Self(-62_135_596_800_000);
    /// The last millisecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The present moment of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Utc::now().into()
    }

    /// From milliseconds since the Unix epoch; [`MIN`](Self::MIN) or [`MAX`](Self::MAX) where they
    /// lie beyond them.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// From milliseconds since the Unix epoch, unless they lie beyond the years 1 to 9999.
    #[must_use]
    pub const fn try_from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 {
            None
        } else {
            Some(Self(millis))
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to `self`; zero where the clock went back.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This moment and `millis` milliseconds; [`MAX`](Self::MAX) at most.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add_unsigned(millis))
    }

    /// Whether this is a moment that a wait may last to, where it begins now: ten years ahead at most.
    #[must_use]
    pub fn is_within_reach_of(self, now: Self) -> bool {
        self <= now.plus_millis(MAX_DURATION_MS)
    }

    /// The end of its minute, as people read it: `2026-01-15 10:31 UTC`.
    pub(crate) fn to_the_minute(self) -> String {
        let minute = self.plus_millis(59_999).to_chrono();
        minute.format("%Y-%m-%d %H:%M UTC").to_string()
    }

    fn to_chrono(self) -> DateTime<Utc> {
        // Every moment of these years is one of chrono's.
        Utc.timestamp_millis_opt(self.0)
            .single()
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.plus_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self::from_millis(time.timestamp_millis())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.to_chrono()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .to_chrono()
                .to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// A text that is no moment docg can keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a moment is written as in RFC 3339, with its zone, and lies in the years 1 to 9999 (UTC)")]
pub struct NoMoment;

impl FromStr for Timestamp {
    type Err = NoMoment;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| NoMoment)?;
        Self::try_from_millis(time.timestamp_millis()).ok_or(NoMoment)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A duration from outside, in milliseconds: from 1 to [`MAX_DURATION_MS`], which is ten years. Reading
/// any other number fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Millis(u64);

/// A number of milliseconds that is no [`Millis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a duration is 1 to {MAX_DURATION_MS} ms, which is ten years")]
pub struct NoDuration;

impl Millis {
    /// The number of milliseconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Millis {
    type Error = NoDuration;
    fn try_from(millis: u64) -> Result<Self, NoDuration> {
        if (1..=MAX_DURATION_MS).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(NoDuration)
        }
    }
}

impl From<Millis> for u64 {
    fn from(millis: Millis) -> Self {
        millis.0
    }
}

/// How long a `Retry-After` header asks to wait (RFC 9110, section 10.2.3), in milliseconds from `now`:
/// it names seconds or a date. `None` for what is neither.
///
/// ```
/// use docg_core::time::{Timestamp, retry_after_ms};
///
/// let now: Timestamp = "2026-01-15T10:30:00Z".parse()?;
/// assert_eq!(retry_after_ms("120", now), Some(120_000));
/// assert_eq!(retry_after_ms("Thu, 15 Jan 2026 10:31:00 GMT", now), Some(60_000));
/// # Ok::<(), docg_core::time::NoMoment>(())
/// ```
#[must_use]
pub fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(
            text.parse()
                .map_or(u64::MAX, |seconds: u64| seconds.saturating_mul(1_000)),
        );
    }
    let date = DateTime::parse_from_rfc2822(text).map(|date| date.to_utc());
    // The two forms of date that only old servers write (RFC 9110, section 5.6.7).
    let date = date.or_else(|_| {
        let old = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
        let [one, other] = old.map(|form| NaiveDateTime::parse_from_str(text, form));
        one.or(other).map(|date| date.and_utc())
    });
    date.ok()
        .map(|date| Timestamp::from(date).millis_since(now))
}

/// What time it is, and how much of it passes. [`SystemClock`] in service, [`ManualClock`] in tests.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present moment: what is written down, and told to others. It may be set back or forth.
    fn now(&self) -> Timestamp;
    /// How much time has passed since some moment in the past. It grows steadily, whatever becomes of
    /// [`now`](Self::now): intervals and deadlines of this process go by it.
    fn elapsed(&self) -> Duration;
    /// Returns once so much time has passed.
    async fn sleep(&self, duration: Duration);
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until it is moved by hand.
#[derive(Debug, Clone)]
pub struct ManualClock(watch::Sender<Hands>);

#[derive(Debug, Clone, Copy)]
struct Hands {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(watch::Sender::new(Hands {
            now: start,
            elapsed: Duration::ZERO,
        }))
    }

    /// Lets time pass, and wakes whoever has slept long enough.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|hands| {
            hands.now = hands.now + by;
            hands.elapsed += by;
        });
    }

    /// Sets what the clock shows, back or forth, without any time passing.
    pub fn set(&self, now: Timestamp) {
        self.0.send_modify(|hands| hands.now = now);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.borrow().now
    }

    fn elapsed(&self) -> Duration {
        self.0.borrow().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.elapsed().saturating_add(duration);
        // An error means that the sender is gone, which `self` rules out.
        let mut hands = self.0.subscribe();
        let _ = hands.wait_for(|hands| hands.elapsed >= end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_is_utc_with_milliseconds() {
        let time: Timestamp = "2026-01-15T07:30:00.5-03:00".parse().expect("valid");
        assert_eq!(time.to_string(), "2026-01-15T10:30:00.500Z");
        assert_eq!(
            serde_json::to_value(time).expect("serializes"),
            "2026-01-15T10:30:00.500Z"
        );
    }

    #[test]
    fn a_clock_that_went_back_gives_no_negative_duration() {
        assert_eq!(
            Timestamp::from_millis(5).millis_since(Timestamp::from_millis(9)),
            0
        );
    }

    #[test]
    fn no_moment_lies_outside_the_years_that_can_be_written() {
        let extremes = [
            i64::MIN,
            -62_135_596_800_001,
            -1,
            0,
            253_402_300_800_000,
            i64::MAX,
        ];
        for millis in extremes {
            let moment = Timestamp::from_millis(millis);
            for later in [moment, moment.plus_millis(u64::MAX), moment + Duration::MAX] {
                assert_eq!(later.to_string().parse(), Ok(later));
                assert_eq!(Timestamp::from(DateTime::<Utc>::from(later)), later);
            }
        }
        assert_eq!(Timestamp::from(DateTime::<Utc>::MAX_UTC), Timestamp::MAX);
        assert_eq!(Timestamp::from(DateTime::<Utc>::MIN_UTC), Timestamp::MIN);
        for beyond in [
            "0000-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59.999-00:01",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2026-01-15T10:30:00",
            "2026-01-15",
            "1768473000",
        ] {
            assert_eq!(beyond.parse::<Timestamp>(), Err(NoMoment), "{beyond}");
        }
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_any_form_of_date() {
        let now = "1994-11-06T08:49:00Z".parse().expect("valid");
        for (text, wait) in [
            ("0", Some(0)),
            (" 37 ", Some(37_000)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(37_000)),
            ("Sun Nov  6 08:49:37 1994", Some(37_000)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after_ms(text, now), wait, "{text}");
        }
    }

    #[test]
    fn a_duration_from_outside_lasts_from_a_millisecond_to_ten_years() {
        let read = |json: &str| serde_json::from_str::<Millis>(json).ok().map(Millis::get);
        assert_eq!(read("1"), Some(1));
        assert_eq!(read("315360000000"), Some(MAX_DURATION_MS));
        for wrong in [
            "0",
            "315360000001",
            "253402300800000",
            "18446744073709551615",
            "-1",
            "1e3",
            "0.5",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn who_sleeps_heeds_no_clock_that_is_set() {
        let clock = ManualClock::new(Timestamp::from_millis(0));
        let mut sleeping = std::pin::pin!(clock.sleep(Duration::from_secs(2)));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.set(Timestamp::from_millis(3_600_000));
        assert!(futures::poll!(&mut sleeping).is_pending());
        clock.set(Timestamp::from_millis(-3_600_000));
        clock.advance(Duration::from_secs(2));
        assert!(futures::poll!(&mut sleeping).is_ready());
        assert_eq!(clock.now(), Timestamp::from_millis(-3_598_000));
    }
}
