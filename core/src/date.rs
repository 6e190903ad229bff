//! Dates as HTTP writes them: `Sun, 06 Nov 1994 08:49:37 GMT`. RFC 9110 §5.6.7.
//!
//! Sits in the protocol layer: seconds in, 29 bytes out, and back. The calendar is the proleptic
//! Gregorian one, counted in eras of 400 years that begin on 1 March, so that the leap day comes
//! last and every month before it has a length that a formula gives.
//!
//! Invariants
//! - [`parse_imf_fixdate`] takes what [`imf_fixdate`] writes and nothing else, so a date that
//!   parses is one that exists, and its day of the week is right.
//!
//! Not here: a clock (time is an argument), and keeping the date of this second (`reactor/`); the
//! two obsolete formats, which only a recipient of dates needs, and this crate reads none.

const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// From March, where the years of the computation begin.
const MONTHS: [&[u8; 3]; 12] = [
    b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"Jan", b"Feb",
];

const SECONDS_PER_DAY: u64 = 86_400;
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH_DAY: u64 = 719_468;
/// The last second that four digits of year can hold: 31 December 9999, 23:59:59.
const LAST_SECOND: u64 = 253_402_300_799;

/// The date `unix_seconds` after 1 January 1970, UTC; later than year 9999, the end of it.
pub fn imf_fixdate(unix_seconds: u64) -> [u8; 29] {
    let seconds = unix_seconds.min(LAST_SECOND);
    let day = seconds / SECONDS_PER_DAY;
    let (year, month, month_day) = civil(day);
    let time = seconds % SECONDS_PER_DAY;

    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // 1 January 1970 was a Thursday, number 3 from Monday.
    text[..3].copy_from_slice(DAYS[((day + 3) % 7) as usize]);
    two_digits(&mut text, 5, month_day);
    text[8..11].copy_from_slice(MONTHS[month]);
    two_digits(&mut text, 12, year / 100);
    two_digits(&mut text, 14, year % 100);
    two_digits(&mut text, 17, time / 3600);
    two_digits(&mut text, 20, time / 60 % 60);
    two_digits(&mut text, 23, time % 60);
    text
}

/// The seconds from 1 January 1970 to an IMF-fixdate; `None` for dates before, for other formats,
/// and for what is no date.
pub fn parse_imf_fixdate(text: &[u8]) -> Option<u64> {
    let text: &[u8; 29] = text.try_into().ok()?;
    let number = |at: usize, len: usize| {
        text[at..at + len].iter().try_fold(0, |value, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
            Some(value * 10 + digit?)
        })
    };
    let month = MONTHS.iter().position(|month| text[8..11] == month[..])?;
    let (day, year) = (number(5, 2)?, number(12, 4)?);
    let (hour, minute, second) = (number(17, 2)?, number(20, 2)?, number(23, 2)?);
    let seconds =
        day_number(year, month as u64, day)? * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    // What does not come back as it was has the wrong day of the week, a day the month lacks, an
    // hour past 23, or other punctuation.
    (imf_fixdate(seconds) == *text).then_some(seconds)
}

/// Year, month and day of the month, from 1 on, of `unix_seconds` after 1 January 1970, UTC.
pub fn calendar_day(unix_seconds: u64) -> (u64, u64, u64) {
    let (year, month, day) = civil(unix_seconds / SECONDS_PER_DAY);
    (year, (month as u64 + 2) % 12 + 1, day)
}

/// Year, month from March, and day of the month, of a day counted from 1 January 1970.
fn civil(day: u64) -> (u64, usize, u64) {
    let day = day + EPOCH_DAY;
    let (era, day) = (day / DAYS_PER_ERA, day % DAYS_PER_ERA);
    // Leap days come every 1,461 days, but for every 36,524th, but for the last of the era.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days.
    let month = (5 * day + 2) / 153;
    let month_day = day - (153 * month + 2) / 5 + 1;
    let calendar_year = era * 400 + year + u64::from(month >= 10);
    // Of the 32 bits none is lost: a month is below 12.
    (
        calendar_year,
        usize::from(month.to_le_bytes()[0]),
        month_day,
    )
}

/// Days from 1 January 1970 to a date; `month` counts from March.
fn day_number(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month >= 10))?;
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day.checked_sub(1)?;
    days.checked_sub(EPOCH_DAY)
}

/// Writes the last two decimal digits of `value` at `at`.
fn two_digits(text: &mut [u8; 29], at: usize, value: u64) {
    text[at] = b'0' + (value / 10 % 10).to_le_bytes()[0];
    text[at + 1] = b'0' + (value % 10).to_le_bytes()[0];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc9110_5_6_7_example() {
        let text = b"Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(imf_fixdate(784_111_777), *text);
        assert_eq!(parse_imf_fixdate(text), Some(784_111_777));
    }

    #[test]
    fn leap_days_and_ends_of_centuries() {
        let table: [(u64, &[u8; 29]); 7] = [
            (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, b"Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, b"Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_251_199, b"Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, b"Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_542_399, b"Sun, 28 Feb 2100 23:59:59 GMT"),
            (LAST_SECOND, b"Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (seconds, text) in table {
            assert_eq!(imf_fixdate(seconds), *text);
            assert_eq!(parse_imf_fixdate(text), Some(seconds));
        }
        assert_eq!(imf_fixdate(u64::MAX), imf_fixdate(LAST_SECOND));
    }

    #[test]
    fn a_date_that_does_not_exist_does_not_parse() {
        let table: [&[u8]; 11] = [
            b"Mon, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 31 Nov 1994 08:49:37 GMT",
            b"Wed, 29 Feb 2023 00:00:00 GMT",
            b"Sun, 06 Nov 1994 24:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:60 GMT",
            b"Sun, 06 Nov 1994 08:49:37 UTC",
            b"Sun, 00 Nov 1994 08:49:37 GMT",
            b"Wed, 31 Dec 1969 23:59:59 GMT",
            b"Sat, 01 Jan 0000 00:00:00 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"",
        ];
        for text in table {
            assert_eq!(parse_imf_fixdate(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_parses_to_what_it_was(seconds in 0..=LAST_SECOND) {
            prop_assert_eq!(parse_imf_fixdate(&imf_fixdate(seconds)), Some(seconds));
        }

        #[test]
        fn the_day_after_is_one_second_after_the_last(day in 0..2_932_896_u64) {
            let (year, month, month_day) = civil(day);
            let (next_year, next_month, next_day) = civil(day + 1);
            let same_month = (next_year, next_month, next_day) == (year, month, month_day + 1);
            let new_month = next_day == 1 && next_month == (month + 1) % 12 && month_day >= 28;
            prop_assert!(same_month || new_month);
        }
    }
}
