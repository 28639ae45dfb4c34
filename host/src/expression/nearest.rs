//! The name that a misspelt name was meant to be.

/// The name among `known` that `name` most likely was meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let enough = if name.chars().count() <= 4 { 0.6 } else { 0.7 };
    let likeness = |k: &str| {
        let spelt = strsim::normalized_damerau_levenshtein(name, k);
        let begun = strsim::jaro_winkler(name, k) - 0.12;
        let part = name.len() >= 3 && k.split('_').any(|word| word == name);
        spelt.max(begun).max(if part { 0.8 } else { 0.0 })
    };
    known
        .map(|k| (likeness(k), k))
        .filter(|(score, _)| *score >= enough)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
