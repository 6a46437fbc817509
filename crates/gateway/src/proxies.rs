//! The proxies that may report the address of a client.
//!
//! `X-Forwarded-For` and `Forwarded` (RFC 7239) list the hops of a request, and any client can write any text into
//! these headers. Only the entries that trusted proxies appended count: from the right, the first hop that is no
//! trusted proxy is the client.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Range>);

/// An address, or a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    address: IpAddr,
    bits: u32,
}

/// The text is no address and no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a range such as 10.0.0.0/8 or fd00::/8")]
pub struct NoRange(String);

impl FromStr for Range {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let refused = || NoRange(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| refused()))?;
        if bits > width {
            return Err(refused());
        }
        Ok(Self { address, bits })
    }
}

impl Range {
    fn contains(self, address: IpAddr) -> bool {
        let differ = |one: u128, other: u128, width: u32| {
            let differing = one ^ other;
            // With zero bits, the shift of an IPv6 address by its whole width would overflow.
            self.bits > 0 && differing >> (width - self.bits) != 0
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                !differ(own.to_bits().into(), other.to_bits().into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => !differ(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// Parses addresses and ranges, separated by commas.
impl FromStr for TrustedProxies {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let ranges = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        ranges.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// The address of the client whose request came from `peer` with these headers.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let walk = |hops: Vec<Option<IpAddr>>| self.walk(peer, hops);
        let x_forwarded_for = hops(headers, &X_FORWARDED_FOR, parse_hop).map(walk);
        let forwarded = hops(headers, &header::FORWARDED, parse_forwarded).map(walk);
        match (x_forwarded_for, forwarded) {
            (Some(client), None) | (None, Some(client)) => client,
            (Some(one), Some(other)) if one == other => one,
            // The proxy writes one header and forwards the client's other header unchanged; the gateway cannot know
            // which.
            (Some(_), Some(_)) | (None, None) => peer,
        }
    }

    /// Whether the gateway trusts the proxy at this address.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(address))
    }

    /// The first hop from the right that is not trusted. An unreadable hop ends the search at the hop before.
    fn walk(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            let Some(hop) = hop else { return client };
            client = hop;
            if !self.trusts(hop) {
                return client;
            }
        }
        client
    }
}

/// The hops in all lines of a header. `None`: the header is absent.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: impl Fn(&str) -> Option<IpAddr>,
) -> Option<Vec<Option<IpAddr>>> {
    let lines = headers.get_all(name).iter();
    let hops: Vec<_> = lines
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(|hop| parse(hop.trim()))
        .collect();
    (!hops.is_empty()).then_some(hops)
}

/// Parses an address in the forms of proxies: bare, with a port, in brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| bare?.parse().ok());
    address.map(|address| address.to_canonical())
}

/// Parses the `for` parameter of one element of `Forwarded`.
fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let pairs = element
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    named
        .next()
        .and_then(|(_, value)| parse_hop(value.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, headers: &[(&str, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let proxies: TrustedProxies = trusted.parse().unwrap();
        let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
        proxies.client(peer, &headers.collect()).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_appended_counts() {
        let chain = [("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")];
        assert_eq!(client("", "198.51.100.1", &chain), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "198.51.100.1", &chain), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &chain), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "10.0.0.1", &chain), "10.0.0.2");
        assert_eq!(
            client("10.0.0.0/8,203.0.113.9", "10.0.0.1", &chain),
            "1.1.1.1"
        );
        assert_eq!(client("0.0.0.0/0", "10.0.0.1", &chain), "1.1.1.1");
        let lines = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &lines), "203.0.113.9");
        assert_eq!(
            client("10.0.0.0/8", "::ffff:10.0.0.1", &lines),
            "203.0.113.9"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_believed() {
        for nonsense in ["", "unknown", "203.0.113.9, _hidden", "203.0.113.9, 1.2.3"] {
            assert_eq!(
                client("10.0.0.1", "10.0.0.1", &[("x-forwarded-for", nonsense)]),
                "10.0.0.1",
                "{nonsense}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_and_two_headers_must_agree() {
        let of = |headers: &[(&str, &str)]| client("10.0.0.1", "10.0.0.1", headers);
        let six = r#"For="[2001:db8::1]:4711";proto=https"#;
        assert_eq!(of(&[("forwarded", six)]), "2001:db8::1");
        assert_eq!(
            of(&[("forwarded", "for=1.1.1.1, for=203.0.113.9;by=x")]),
            "203.0.113.9"
        );
        assert_eq!(of(&[("forwarded", "proto=https")]), "10.0.0.1");
        let (one, other) = (
            ("forwarded", "for=203.0.113.9"),
            ("x-forwarded-for", "1.1.1.1"),
        );
        assert_eq!(of(&[one, other]), "10.0.0.1");
        assert_eq!(
            of(&[one, ("x-forwarded-for", "203.0.113.9:80")]),
            "203.0.113.9"
        );
    }

    #[test]
    fn ranges_are_checked() {
        for wrong in [
            "10.0.0.0/33",
            "10.0.0",
            "fd00::/129",
            "proxy",
            "10.0.0.0/-1",
        ] {
            let refused = wrong.parse::<TrustedProxies>().unwrap_err();
            assert!(refused.to_string().contains(wrong));
        }
        let six: TrustedProxies = " fd00::/8 , ::1".parse().unwrap();
        assert!(six.trusts("fdff::1".parse().unwrap()) && six.trusts("::1".parse().unwrap()));
        assert!(
            !six.trusts("fe00::1".parse().unwrap()) && !six.trusts("10.0.0.1".parse().unwrap())
        );
    }
}
