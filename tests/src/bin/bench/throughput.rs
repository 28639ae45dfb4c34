//! The host against the bare loop, in interleaved pairs of the same input.

use crate::machine::Others;
use crate::report::{self, Pair, Summary};
use crate::store;
use crate::{Arguments, Case, bare, hosted::Setup};

/// Runs `cases`, at least one, and returns what came out of the last.
pub(crate) fn run(arguments: &Arguments, cases: &[Case]) -> Result<Summary, String> {
    let mut summaries = Vec::new();
    for case in cases {
        let mut pairs = Vec::new();
        for round in 0..arguments.pairs {
            pairs.push(pair(arguments, *case, round)?);
        }
        summaries.push((*case, Summary::of(&pairs)));
    }
    report::table(&summaries);
    let last = summaries.pop().ok_or("no case")?;
    Ok(last.1)
}

/// A fresh store for each pair: both sides find the same, whatever ran before.
fn pair(arguments: &Arguments, case: Case, round: usize) -> Result<Pair, String> {
    let plugin = arguments.component("enrich")?;
    let dir = arguments.dir.join(format!("{}-{round}", case as u8));
    store::prepare(&dir, arguments.messages)?;
    store::warm(&dir, &plugin)?;
    let hosted = || {
        let name = format!("host-{round}");
        Setup::new(&dir, &name, &plugin, case).run(arguments.messages)
    };
    let bare = || {
        [1, 2]
            .map(|threads| bare::run(&dir, case, threads, round, arguments.messages))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    let others = Others::since_now();
    // The order alternates, so that neither side always runs on the warmer machine.
    let (bare, hosted) = if round.is_multiple_of(2) {
        (bare()?, hosted()?)
    } else {
        let hosted = hosted()?;
        (bare()?, hosted)
    };
    let pair = Pair {
        bare,
        hosted,
        others: others.percent(),
    };
    report::pair(case, round, &pair);
    store::clear(&dir)?;
    Ok(pair)
}
