//! The choice between the two formats of metrics, by `Accept` (RFC 9110, 12.5.1).

use hyper::header::{self, HeaderMap};

use crate::server::http::extract::members;

/// The type of OpenMetrics, and the versions that an answer satisfies. A range without a version takes any.
const OPENMETRICS: (&str, &str, &[&str]) = ("application", "openmetrics-text", &["1.0.0"]);

/// The type of Prometheus' own text format.
const TEXT: (&str, &str, &[&str]) = ("text", "plain", &["0.0.4"]);

/// Returns whether the request prefers OpenMetrics to the text format. Without `Accept` it does not: tools that know of no
/// formats, such as browsers, show plain text.
pub(super) fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let of_openmetrics = quality(headers, OPENMETRICS);
    // Equal weights go to the type that the request names.
    of_openmetrics > 0 && (of_openmetrics, is_named(headers)) > (quality(headers, TEXT), false)
}

/// The weight of a type in thousandths: that of the most specific range that matches it.
fn quality(headers: &HeaderMap, (kind, subtype, versions): (&str, &str, &[&str])) -> u16 {
    let matching = members(headers, &header::ACCEPT).filter_map(|member| {
        let range = Range::parse(member)?;
        let is_version = range.version.is_none_or(|version| versions.contains(&version));
        let specificity = match (range.kind, range.subtype) {
            ("*", "*") => 0,
            (of, "*") if of.eq_ignore_ascii_case(kind) => 1,
            (of, sub) if of.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) && is_version => {
                2 + u8::from(range.version.is_some())
            }
            _ => return None,
        };
        Some((specificity, range.quality))
    });
    matching.max().map(|(_, quality)| quality).unwrap_or_default()
}

/// Whether a range names OpenMetrics, not only `*`.
fn is_named(headers: &HeaderMap) -> bool {
    let (kind, subtype, _) = OPENMETRICS;
    members(headers, &header::ACCEPT)
        .filter_map(Range::parse)
        .any(|range| range.kind.eq_ignore_ascii_case(kind) && range.subtype.eq_ignore_ascii_case(subtype))
}

/// A media range.
struct Range<'a> {
    /// `text`, or `*`.
    kind: &'a str,
    /// `plain`, or `*`.
    subtype: &'a str,
    /// The parameter `version`.
    version: Option<&'a str>,
    /// The weight in thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// Reads a member of `Accept`. `None` if it is no media range.
    fn parse(member: &'a str) -> Option<Self> {
        let mut parts = member.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, version: None, quality: 1000 };
        for part in parts {
            match part.split_once('=') {
                Some(("q" | "Q", weight)) => range.quality = thousandths(weight.trim())?,
                Some((name, value)) if name.trim_end().eq_ignore_ascii_case("version") => {
                    range.version = Some(value.trim().trim_matches('"'));
                }
                _ => {}
            }
        }
        Some(range)
    }
}

/// Reads a weight: 0 to 1, with three decimals at most (RFC 9110, 12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let value: f32 = weight.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT, HeaderMap, HeaderValue};

    use super::prefers_openmetrics;

    fn prefers(lines: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_static(line));
        }
        prefers_openmetrics(&headers)
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        // Prometheus 2.42, then 3.0.
        assert!(prefers(&[
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                           text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ]));
        assert!(prefers(&["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                           application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;\
                           q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"]));
        assert!(prefers(&["text/plain;q=0.5", "application/openmetrics-text"]));
        assert!(prefers(&["Application/OpenMetrics-Text; Version=\"1.0.0\""]));
        assert!(prefers(&["application/openmetrics-text, text/plain"]));
    }

    #[test]
    fn others_get_plain_text() {
        for line in [
            "",
            "*/*",
            "text/plain",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/*;q=0.9, text/plain",
            "application/openmetrics-text;q=0.4, text/*;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=high",
            "application/openmetrics-text;q=2",
            "openmetrics",
        ] {
            assert!(!prefers(&[line]), "{line}");
        }
        assert!(!prefers(&[]));
    }
}
