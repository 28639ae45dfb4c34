//! What may become of sequence numbers (§4.5), told apart from how the worker got there: the numbers of a
//! key that take effect only rise, what does not rise is passed over, and the last one is durable in the
//! settlement that made it so.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use super::ledger::{Contents, Ledger};
use super::scenario::{Id, Scenario};
use super::world::Commit;

impl Ledger {
    pub(super) fn check_numbers(
        &mut self,
        scenario: &Scenario,
        commit: &Commit,
        contents: &Contents,
    ) -> Result<(), String> {
        let mut risen = BTreeMap::new();
        let mut effects: Vec<Id> = Vec::new();
        for id in &contents.order {
            let reason = contents
                .letters
                .get(id)
                .map(|letter| letter.reason.as_str());
            let numbered = numbered(scenario, *id)
                .filter(|_| !matches!(reason, Some("stale_sequence" | "undecodable")));
            let Some((key, number)) = numbered.filter(|_| effects.last() != Some(id)) else {
                continue;
            };
            effects.push(*id);
            let before = self.numbers.insert((id.0, key.to_vec()), number);
            if before.is_some_and(|before| before >= number) {
                return Err(format!("{id:?} with number {number} after {before:?}"));
            }
            risen.insert((id.0, xxh3_128(key)), number);
        }
        for id in contents.finished.iter().filter(|id| !effects.contains(id)) {
            let letter = contents.letters.get(id);
            if letter.is_some_and(|letter| letter.reason == "undecodable") {
                continue;
            }
            let Some((key, number)) = numbered(scenario, *id) else {
                continue;
            };
            let last = self.numbers.get(&(id.0, key.to_vec()));
            if last.is_none_or(|last| *last < number) {
                return Err(format!(
                    "{id:?} with number {number} was passed over after {last:?}"
                ));
            }
        }
        let written: BTreeMap<_, _> = commit.numbers.iter().copied().collect();
        if written == risen {
            return Ok(());
        }
        Err(format!(
            "numbers {written:?} are written, {risen:?} took effect"
        ))
    }
}

/// Key and number of a message that has both.
fn numbered(scenario: &Scenario, id: Id) -> Option<(&[u8], i64)> {
    let input = scenario.input(id)?;
    Some((input.key.as_deref()?, input.number?))
}
