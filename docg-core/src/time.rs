//! Moments, durations, and the engine's clock.

use std::{fmt, ops::Add, str::FromStr, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::{sync::watch, time::Instant};

/// The longest duration that docg accepts from outside, in milliseconds: ten years.
pub const MAX_DURATION_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// [`MAX_DURATION_MS`] as a [`Duration`].
pub const MAX_DURATION: Duration = Duration::from_millis(MAX_DURATION_MS);

/// A moment in the years 1 to 9999: milliseconds since the Unix epoch, UTC. On the wire it is RFC 3339 with
/// `Z` and milliseconds.
///
/// The range ensures that every stored moment can be written and read again. Numbers and the results of
/// arithmetic are clamped to the range; a text with a moment outside of the range is rejected.
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

    /// The current time of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Utc::now().into()
    }

    /// A moment from milliseconds since the Unix epoch, clamped to [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
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

    /// A moment from milliseconds since the Unix epoch; `None` outside the years 1 to 9999.
    #[must_use]
    pub const fn try_from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 {
            None
        } else {
            Some(Self(millis))
        }
    }

    /// The milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The milliseconds from `earlier` to `self`: zero if the clock was set back, and at most
    /// [`MAX_DURATION_MS`] in case the clock was set forward.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        let millis = u64::try_from(self.0.saturating_sub(earlier.0));
        millis.unwrap_or(0).min(MAX_DURATION_MS)
    }

    /// The moment `millis` milliseconds later; at most [`MAX`](Self::MAX).
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add_unsigned(millis))
    }

    /// True if this moment is at most ten years after `now`, so that a wait may last until it.
    #[must_use]
    pub fn is_within_reach_of(self, now: Self) -> bool {
        self <= now.plus_millis(MAX_DURATION_MS)
    }

    /// The moment rounded up to the minute, for people: `2026-01-15 10:31 UTC`.
    pub(crate) fn to_the_minute(self) -> String {
        let minute = self.plus_millis(59_999).to_chrono();
        minute.format("%Y-%m-%d %H:%M UTC").to_string()
    }

    fn to_chrono(self) -> DateTime<Utc> {
        // chrono covers every moment of the years 1 to 9999.
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

/// The error for a text that is not a moment in the years 1 to 9999.
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

/// A duration from outside, in milliseconds: 1 to [`MAX_DURATION_MS`], which is ten years. Deserializing any
/// other number fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Millis(u64);

/// The error for a number of milliseconds outside the range of [`Millis`].
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

/// The wait that a `Retry-After` header asks for (RFC 9110, section 10.2.3), in milliseconds from `now`.
/// `None` if the header holds neither seconds nor a date.
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
    // Also accept the two obsolete forms of a date, which only old servers send (RFC 9110, section 5.6.7).
    let date = date.or_else(|_| {
        let old = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
        let [one, other] = old.map(|form| NaiveDateTime::parse_from_str(text, form));
        one.or(other).map(|date| date.and_utc())
    });
    date.ok()
        .map(|date| Timestamp::from(date).millis_since(now))
}

/// The engine's clock: the current time, and the passage of time. [`SystemClock`] in production,
/// [`ManualClock`] in tests.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time, which docg stores and shows. An operator may set this clock back or forward.
    fn now(&self) -> Timestamp;
    /// The time passed since a fixed moment in the past. It grows steadily even if [`now`](Self::now) jumps,
    /// so the process measures intervals and deadlines by it.
    fn elapsed(&self) -> Duration;
    /// Returns after the given duration.
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

/// A clock for tests that stands still until the test moves it.
#[derive(Debug, Clone)]
pub struct ManualClock(watch::Sender<Hands>);

#[derive(Debug, Clone, Copy)]
struct Hands {
    now: Timestamp,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that starts at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(watch::Sender::new(Hands {
            now: start,
            elapsed: Duration::ZERO,
        }))
    }

    /// Lets time pass, and ends every [`sleep`](Clock::sleep) whose time is over.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|hands| {
            hands.now = hands.now + by;
            hands.elapsed += by;
        });
    }

    /// Sets the current time back or forward. No time passes: [`elapsed`](Clock::elapsed) stays as it is.
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
        // `wait_for` fails only if the sender is dropped, and `self` holds it.
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
    fn a_clock_that_was_set_gives_no_negative_and_no_endless_duration() {
        for (earlier, later, millis) in [
            (5, 9, 4),
            (9, 9, 0),
            (9, 5, 0),
            (Timestamp::MAX.as_millis(), 0, 0),
            (0, MAX_DURATION_MS as i64, MAX_DURATION_MS),
            (0, MAX_DURATION_MS as i64 + 1, MAX_DURATION_MS),
            (i64::MIN, i64::MAX, MAX_DURATION_MS),
            (i64::MAX, i64::MIN, 0),
        ] {
            let [earlier, later] = [earlier, later].map(Timestamp::from_millis);
            assert_eq!(later.millis_since(earlier), millis, "{earlier} {later}");
        }
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
