//! Sorts departures: what took off goes to `flown`, what did not to `cancelled`, and what left more
//! than an hour behind its schedule to `late` as well. Which topics these are, what makes a
//! departure unique and how often it is tried is the pipeline's business.
//!
//! A distance below zero is rejected, unless `config: { negative_distance: accept }` says that the sign
//! is a known fault of the source: the sort of repair after which dead letters are redriven.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use wasmill_sdk::{Failure, Message, Output, Outputs, config};

/// Minutes behind the schedule above which a departure is late.
const LATE_MINUTES: i32 = 60;

/// The part of a line that matters here. Texts are read in place.
#[derive(Deserialize)]
struct Departure<'a> {
    year: u16,
    month: u8,
    day: u8,
    #[serde(borrow)]
    carrier: Cow<'a, str>,
    flight: u32,
    #[serde(borrow)]
    tailnum: Option<Cow<'a, str>>,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    #[serde(borrow)]
    dest: Cow<'a, str>,
    /// Local time as hhmm.
    sched_dep_time: u16,
    /// Absent: it never left.
    dep_time: Option<u16>,
    /// Minutes; negative is early.
    dep_delay: Option<i32>,
    arr_delay: Option<i32>,
    air_time: Option<u32>,
    /// Miles.
    distance: i64,
}

#[derive(Serialize)]
struct Flown<'a> {
    flight: String,
    date: String,
    route: String,
    tailnum: Option<&'a str>,
    departure_delay_minutes: Option<i32>,
    /// Absent when it was diverted.
    arrival_delay_minutes: Option<i32>,
    /// How much of the delay was made up in the air; negative is more delay.
    regained_minutes: Option<i32>,
    average_mph: Option<i64>,
}

#[derive(Serialize)]
struct Cancelled {
    flight: String,
    date: String,
    route: String,
    scheduled: String,
}

#[derive(Serialize)]
struct Late {
    flight: String,
    date: String,
    route: String,
    delay_minutes: i32,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let mut departure: Departure = message.json()?;
    if departure.distance < 0 && config::get("negative_distance").as_deref() == Some("accept") {
        departure.distance = departure.distance.saturating_neg();
    }
    if departure.distance < 0 {
        return Err(Failure::rejected(format!(
            "distance is {} miles: a flight cannot be shorter than nothing",
            departure.distance
        )));
    }
    if departure.dep_time.is_none() {
        let cancelled = Output::to("cancelled").json(&departure.cancelled())?;
        return Ok(Outputs::one(cancelled));
    }
    let mut outputs = Outputs::one(Output::to("flown").json(&departure.flown())?);
    if let Some(minutes) = departure.dep_delay.filter(|delay| *delay > LATE_MINUTES) {
        outputs.push(Output::to("late").json(&departure.late(minutes))?);
    }
    Ok(outputs)
}

impl Departure<'_> {
    fn flown(&self) -> Flown<'_> {
        let regained = self.dep_delay.zip(self.arr_delay);
        let minutes_in_air = self.air_time.filter(|minutes| *minutes > 0);
        Flown {
            flight: self.number(),
            date: self.date(),
            route: self.route(),
            tailnum: self.tailnum.as_deref(),
            departure_delay_minutes: self.dep_delay,
            arrival_delay_minutes: self.arr_delay,
            regained_minutes: regained.map(|(left, arrived)| left.saturating_sub(arrived)),
            average_mph: minutes_in_air
                .map(|minutes| self.distance.saturating_mul(60) / i64::from(minutes)),
        }
    }

    fn cancelled(&self) -> Cancelled {
        let (hour, minute) = (self.sched_dep_time / 100, self.sched_dep_time % 100);
        Cancelled {
            flight: self.number(),
            date: self.date(),
            route: self.route(),
            scheduled: format!("{hour:02}:{minute:02}"),
        }
    }

    fn late(&self, delay_minutes: i32) -> Late {
        Late {
            flight: self.number(),
            date: self.date(),
            route: self.route(),
            delay_minutes,
        }
    }

    /// As on the board: UA1545.
    fn number(&self) -> String {
        format!("{}{}", self.carrier, self.flight)
    }

    fn date(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn route(&self) -> String {
        format!("{}-{}", self.origin, self.dest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may stop at once"
    )]

    use super::*;
    use serde_json::{Value, json};
    use std::io::{BufRead, BufReader};
    use wasmill_sdk::testing;

    fn line(changes: Value) -> Value {
        let mut line = json!({
            "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2,
            "arr_time": 830, "sched_arr_time": 819, "arr_delay": 11, "carrier": "UA", "flight": 1545,
            "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "air_time": 227, "distance": 1400,
            "hour": 5, "minute": 15, "time_hour": "2013-01-01T10:00:00Z"
        });
        for (key, value) in changes.as_object().unwrap() {
            line[key] = value.clone();
        }
        line
    }

    fn handled(changes: Value) -> Result<Outputs, Failure> {
        Message::test().json(&line(changes)).handle(handle)
    }

    fn names(outputs: &Outputs) -> Vec<&str> {
        outputs.iter().map(Output::name).collect()
    }

    #[test]
    fn a_flight_that_left_is_flown_with_its_figures() {
        let outputs = handled(json!({})).unwrap();
        assert_eq!(names(&outputs), ["flown"]);
        let flown: Value = outputs.named("flown").next().unwrap().parse_json().unwrap();
        let expected = json!({
            "flight": "UA1545", "date": "2013-01-01", "route": "EWR-IAH", "tailnum": "N14228",
            "departure_delay_minutes": 2, "arrival_delay_minutes": 11, "regained_minutes": -9,
            "average_mph": 370
        });
        assert_eq!(flown, expected);
    }

    #[test]
    fn a_flight_without_departure_is_cancelled() {
        let outputs = handled(
            json!({"dep_time": null, "dep_delay": null, "arr_delay": null, "air_time": null}),
        )
        .unwrap();
        assert_eq!(names(&outputs), ["cancelled"]);
        let cancelled: Value = outputs
            .named("cancelled")
            .next()
            .unwrap()
            .parse_json()
            .unwrap();
        let expected = json!({"flight": "UA1545", "date": "2013-01-01", "route": "EWR-IAH", "scheduled": "05:15"});
        assert_eq!(cancelled, expected);
    }

    #[test]
    fn more_than_an_hour_behind_is_flown_and_late() {
        assert_eq!(
            names(&handled(json!({"dep_delay": 60})).unwrap()),
            ["flown"]
        );
        let outputs = handled(json!({"dep_delay": 61})).unwrap();
        assert_eq!(names(&outputs), ["flown", "late"]);
        let late: Value = outputs.named("late").next().unwrap().parse_json().unwrap();
        assert_eq!(late["delay_minutes"], 61);
    }

    #[test]
    fn a_distance_below_zero_is_rejected_with_the_reason() {
        let failure = handled(json!({"distance": -1})).unwrap_err();
        assert!(failure.is_rejected());
        assert_eq!(
            failure.reason(),
            "distance is -1 miles: a flight cannot be shorter than nothing"
        );
    }

    #[test]
    fn a_distance_below_zero_loses_its_sign_where_the_source_is_known_for_it() {
        testing::set_config("negative_distance", "accept");
        let outputs = handled(json!({"distance": -1400})).unwrap();
        let flown: Value = outputs.named("flown").next().unwrap().parse_json().unwrap();
        assert_eq!(flown["average_mph"], 370);
        testing::reset();
    }

    #[test]
    fn what_is_not_json_or_not_a_departure_is_rejected() {
        for payload in ["not json", "{}", r#"{"flight": null}"#] {
            let failure = Message::test().payload(payload).handle(handle).unwrap_err();
            assert!(failure.is_rejected(), "{payload}: {failure}");
        }
    }

    #[test]
    fn the_month_has_26483_flown_521_cancelled_and_1821_late() {
        let file = std::fs::File::open("data/flights-2013-01.jsonl.gz").unwrap();
        let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
        let (mut flown, mut cancelled, mut late) = (0, 0, 0);
        for line in lines {
            let outputs = Message::test()
                .payload(line.unwrap())
                .handle(handle)
                .unwrap();
            flown += outputs.named("flown").count();
            cancelled += outputs.named("cancelled").count();
            late += outputs.named("late").count();
        }
        assert_eq!((flown, cancelled, late), (26_483, 521, 1_821));
    }
}
