//! The table of requirements and attacks, and what may be wrong with it.

use std::collections::HashSet;

use anyhow::Result;
use serde::Deserialize;

/// All ids: in each series, from 1 to this number.
const SERIES: [(&str, u32); 19] = [
    ("FR", 18),
    ("X", 17),
    ("AL", 18),
    ("RF", 6),
    ("PM", 12),
    ("CB", 13),
    ("CD", 11),
    ("PR", 8),
    ("SD", 6),
    ("IP", 22),
    ("V6", 4),
    ("MB", 5),
    ("TC", 2),
    ("DT", 1),
    ("AS", 1),
    ("NT", 2),
    ("SC", 17),
    ("OP", 10),
    ("A", 44),
];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(rename = "section")]
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub title: String,
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    /// Sections of RFCs, or the position of an attacker.
    pub source: String,
    /// What is required, or what the attacker does.
    pub requirement: String,
    /// What becomes of the packets; none where it is not about packets.
    pub path: Vec<Path>,
    /// Tests, by package, test program and name.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Why there is no test.
    pub untested: Option<String>,
    /// What turn-bpf does in another way than one might expect, and why.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    Relayed,
    Passed,
    PassedAndSnooped,
    Revoked,
}

impl Path {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Passed => "passed",
            Self::PassedAndSnooped => "passed and snooped",
            Self::Revoked => "revoked",
        }
    }
}

impl Table {
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// What is wrong, one line each.
    pub fn faults(&self, existing: &HashSet<String>) -> Vec<String> {
        let mut faults = Vec::new();
        let mut seen = HashSet::new();
        for row in self.rows() {
            let Row { id, tests, untested, .. } = row;
            if !seen.insert(id.clone()) {
                faults.push(format!("{id} is there twice"));
            }
            match (tests.is_empty(), untested) {
                (true, None) => faults.push(format!("{id} has neither a test nor a reason why not")),
                (false, Some(_)) => faults.push(format!("{id} has tests, and a reason why not")),
                _ => {}
            }
            let missing = tests.iter().filter(|test| !existing.contains(*test));
            faults.extend(missing.map(|test| format!("{id} names {test}, which does not exist")));
        }
        let ids: Vec<_> = ids().collect();
        faults.extend(ids.iter().filter(|id| !seen.contains(*id)).map(|id| format!("{id} is missing")));
        let unknown = seen.iter().filter(|id| !ids.contains(id));
        faults.extend(unknown.map(|id| format!("{id} is no id of any series")));
        faults
    }
}

fn ids() -> impl Iterator<Item = String> {
    SERIES.into_iter().flat_map(|(series, last)| (1..=last).map(move |number| format!("{series}-{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../../docs/conformance.toml");

    /// The table, of whose tests all exist.
    fn whole() -> (Table, HashSet<String>) {
        let table = Table::parse(TABLE).unwrap();
        let existing = table.rows().flat_map(|row| row.tests.clone()).collect();
        (table, existing)
    }

    #[test]
    fn every_id_is_there_with_tests_or_a_reason() {
        let (table, existing) = whole();
        assert_eq!(table.faults(&existing), [""; 0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (table, existing) = whole();
        let faults_of = |change: fn(&mut Section)| {
            let mut table = table.clone();
            change(&mut table.sections[0]);
            table.faults(&existing)
        };
        assert_eq!(faults_of(|section| drop(section.rows.remove(0))), ["FR-1 is missing"]);
        assert_eq!(faults_of(|section| section.rows.push(section.rows[0].clone())), ["FR-1 is there twice"]);
        assert_eq!(
            faults_of(|section| section.rows[0].tests.clear()),
            ["FR-1 has neither a test nor a reason why not"]
        );
        assert_eq!(
            faults_of(|section| section.rows[0].untested = Some("too hard".to_owned())),
            ["FR-1 has tests, and a reason why not"]
        );
        assert_eq!(
            faults_of(|section| section.rows[0].tests = vec!["a::b::c".to_owned()]),
            ["FR-1 names a::b::c, which does not exist"]
        );
        assert_eq!(
            faults_of(|section| section.rows[0].id = "FR-19".to_owned()),
            ["FR-1 is missing", "FR-19 is no id of any series"]
        );
    }
}
