//! What the bench's handler does with an order: parse it, drop one in ten, change a field, add a
//! total, write it again. Knows neither the SDK nor the host, so that the sandboxed handler and the
//! bare native loop beside it do exactly the same work.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An order as it comes in, about 195 bytes of JSON.
#[derive(Serialize, Deserialize)]
struct Order<'a> {
    order_id: u64,
    #[serde(borrow)]
    customer: Cow<'a, str>,
    #[serde(borrow)]
    sku: Cow<'a, str>,
    quantity: u32,
    unit_price_cents: u64,
    #[serde(borrow)]
    currency: Cow<'a, str>,
    #[serde(borrow)]
    country: Cow<'a, str>,
    #[serde(borrow)]
    placed_at: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// An order as it goes out.
#[derive(Serialize)]
pub struct Enriched<'a> {
    order_id: u64,
    customer: Cow<'a, str>,
    sku: Cow<'a, str>,
    quantity: u32,
    unit_price_cents: u64,
    total_cents: u64,
    currency: Cow<'a, str>,
    country: Cow<'a, str>,
    placed_at: Cow<'a, str>,
    status: &'static str,
}

/// The order with its total and its new status, or none: orders whose number ends in 0 are dropped,
/// as are those that are not new. Fails on what is not an order.
pub fn enrich(payload: &[u8]) -> Result<Option<Enriched<'_>>, serde_json::Error> {
    let order: Order = serde_json::from_slice(payload)?;
    if order.order_id.is_multiple_of(10) || order.status != "new" {
        return Ok(None);
    }
    Ok(Some(Enriched {
        total_cents: order
            .unit_price_cents
            .saturating_mul(u64::from(order.quantity)),
        order_id: order.order_id,
        customer: order.customer,
        sku: order.sku,
        quantity: order.quantity,
        unit_price_cents: order.unit_price_cents,
        currency: order.currency,
        country: order.country,
        placed_at: order.placed_at,
        status: "enriched",
    }))
}

/// [`enrich`] for a loop without the SDK: appends the JSON to `out`; false, and nothing appended, for
/// an order that is dropped.
pub fn enrich_into(payload: &[u8], out: &mut Vec<u8>) -> Result<bool, serde_json::Error> {
    match enrich(payload)? {
        Some(enriched) => serde_json::to_writer(out, &enriched).map(|()| true),
        None => Ok(false),
    }
}

/// Appends the order of this number: the same bytes each time, 195 on average, one in ten of them an
/// order that is dropped.
pub fn sample(sequence: u64, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    const COUNTRIES: [&str; 4] = ["DE", "FR", "NL", "AT"];
    let noise = noise(sequence);
    let (day, hour, minute) = (noise % 28 + 1, noise % 24, noise % 60);
    let order = Order {
        order_id: 100_000_000 + sequence,
        customer: sample_key(sequence).into(),
        sku: format!("SKU-{:08X}", noise & 0xffff_ffff).into(),
        quantity: (noise % 9) as u32 + 1,
        unit_price_cents: noise % 100_000 + 99,
        currency: "EUR".into(),
        country: COUNTRIES
            .get((noise % 4) as usize)
            .map_or("DE", |country| country)
            .into(),
        placed_at: format!("2026-11-{day:02}T{hour:02}:{minute:02}:00Z").into(),
        status: "new".into(),
    };
    serde_json::to_writer(out, &order)
}

/// The key of the order of this number: its customer, one of a million.
#[must_use]
pub fn sample_key(sequence: u64) -> String {
    format!("customer-{:010}", noise(sequence) % 1_000_000)
}

/// An odd multiplier scatters neighbours; the upper bits are the better ones.
fn noise(sequence: u64) -> u64 {
    sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn orders_are_195_bytes_on_average_and_one_in_ten_is_dropped() {
        let (mut bytes, mut dropped, mut order) = (0, 0, Vec::new());
        for sequence in 0..10_000 {
            order.clear();
            sample(sequence, &mut order).unwrap();
            bytes += order.len();
            dropped += u32::from(enrich(&order).unwrap().is_none());
        }
        assert_eq!(bytes / 10_000, 195);
        assert_eq!(dropped, 1_000);
    }

    #[test]
    fn the_total_is_added_and_the_status_changed() {
        let order = br#"{"order_id":7,"customer":"c","sku":"s","quantity":3,"unit_price_cents":250,"currency":"EUR","country":"DE","placed_at":"t","status":"new"}"#;
        let mut out = Vec::new();
        assert!(enrich_into(order, &mut out).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"order_id":7,"customer":"c","sku":"s","quantity":3,"unit_price_cents":250,"total_cents":750,"currency":"EUR","country":"DE","placed_at":"t","status":"enriched"}"#
        );
    }
}
