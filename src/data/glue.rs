//! The GLUE tasks: which columns hold their sentences and labels, in each layout they are published in.
use super::table::{Columns, column};
use crate::{Error, Result};

/// A task of the GLUE benchmark (Wang et al. 2019) fipk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Sst2,
    Cola,
    Mrpc,
    Qqp,
    Stsb,
    Mnli,
    Qnli,
    Rte,
}

const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];

impl Task {
    pub const ALL: [Self; 8] =
        [Self::Sst2, Self::Cola, Self::Mrpc, Self::Qqp, Self::Stsb, Self::Mnli, Self::Qnli, Self::Rte];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sst2 => "sst2",
            Self::Cola => "cola",
            Self::Mrpc => "mrpc",
            Self::Qqp => "qqp",
            Self::Stsb => "stsb",
            Self::Mnli => "mnli",
            Self::Qnli => "qnli",
            Self::Rte => "rte",
        }
    }

    /// `SST-2` and `sst2` are the same task.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_lowercase().replace('-', "");
        Self::ALL.into_iter().find(|task| task.name() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The classes in the order of their number in Hugging Face's `glue`; none for STS-B, which has scores.
    pub fn classes(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Sst2 => Some(&["negative", "positive"]),
            Self::Cola => Some(&["unacceptable", "acceptable"]),
            Self::Mrpc => Some(&["not_equivalent", "equivalent"]),
            Self::Qqp => Some(&["not_duplicate", "duplicate"]),
            Self::Stsb => None,
            Self::Mnli => Some(&["entailment", "neutral", "contradiction"]),
            Self::Qnli | Self::Rte => Some(ENTAILMENT),
        }
    }

    /// Column names of the sentence, of the second sentence, of the label; the first one present is taken.
    fn columns(self) -> (&'static [&'static str], Option<&'static [&'static str]>, &'static [&'static str]) {
        match self {
            Self::Sst2 | Self::Cola => (&["sentence"], None, &["label"]),
            Self::Mrpc => (&["sentence1", "#1 String"], Some(&["sentence2", "#2 String"]), &["label", "Quality"]),
            Self::Qqp => (&["question1"], Some(&["question2"]), &["label", "is_duplicate"]),
            Self::Stsb => (&["sentence1"], Some(&["sentence2"]), &["score", "label"]),
            Self::Mnli => (&["premise", "sentence1"], Some(&["hypothesis", "sentence2"]), &["gold_label", "label"]),
            Self::Qnli => (&["question"], Some(&["sentence"]), &["label"]),
            Self::Rte => (&["sentence1", "premise"], Some(&["sentence2", "hypothesis"]), &["label"]),
        }
    }

    /// The columns to keep of a file: sentence, second sentence if the task has one, label.
    ///
    /// # Errors
    /// [`Error::Data`] names the column wanted and those the file has.
    pub fn choose(self, file: &str, header: &[String]) -> Result<Columns> {
        // CoLA as published has no header: source, label, the author's star, sentence.
        let raw = |label: &String| label == "0" || label == "1";
        if self == Self::Cola && header.len() == 4 && header.get(1).is_some_and(raw) {
            return Ok(Columns { keep: vec![3, 1], headless: true });
        }
        let (first, second, label) = self.columns();
        let mut keep = vec![column(file, header, first)?];
        if let Some(second) = second {
            keep.push(column(file, header, second)?);
        }
        keep.push(column(file, header, label).map_err(|error| match error {
            Error::Data { place, what, .. } => {
                Error::data(place, what, "GLUE keeps the labels of its test files to itself; choose ?split=dev")
            }
            other => other,
        })?);
        Ok(Columns { keep, headless: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers as the tasks' own archives and Hugging Face's copies have them, and the columns to take.
    const LAYOUTS: &[(Task, &str, &[usize])] = &[
        (Task::Sst2, "sentence\tlabel", &[0, 1]),
        (Task::Sst2, "idx\tsentence\tlabel", &[1, 2]),
        (Task::Cola, "gj04\t1\t\tOur friends won't buy this analysis.", &[3, 1]),
        (Task::Cola, "sentence\tlabel\tidx", &[0, 1]),
        (Task::Cola, "source\tlabel\tstar\tsentence", &[3, 1]),
        (Task::Mrpc, "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", &[3, 4, 0]),
        (Task::Mrpc, "sentence1\tsentence2\tlabel\tidx", &[0, 1, 2]),
        (Task::Qqp, "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", &[3, 4, 5]),
        (Task::Qqp, "question1\tquestion2\tlabel\tidx", &[0, 1, 2]),
        (
            Task::Stsb,
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            &[7, 8, 9],
        ),
        (Task::Stsb, "sentence1\tsentence2\tlabel\tidx", &[0, 1, 2]),
        (
            Task::Mnli,
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t\
             sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
            &[8, 9, 11],
        ),
        (Task::Mnli, "premise\thypothesis\tlabel\tidx", &[0, 1, 2]),
        (Task::Qnli, "index\tquestion\tsentence\tlabel", &[1, 2, 3]),
        (Task::Rte, "index\tsentence1\tsentence2\tlabel", &[1, 2, 3]),
    ];

    #[test]
    fn every_published_layout_gives_its_columns() {
        for (task, header, wanted) in LAYOUTS {
            let names: Vec<String> = header.split('\t').map(str::to_string).collect();
            let columns = task.choose("f", &names).unwrap();
            assert_eq!(columns.keep, *wanted, "{task:?} {header}");
            assert_eq!(columns.headless, header.starts_with("gj04"), "{header}");
        }
    }

    #[test]
    fn a_test_file_without_labels_says_why() {
        let error = Task::Sst2.choose("test.tsv", &["index".into(), "sentence".into()]).unwrap_err().to_string();
        assert!(error.contains("column `label`") && error.contains("index, sentence"), "{error}");
        assert!(error.contains("split=dev"), "{error}");
    }
}
