//! Sentences, or pairs of them, with a class or a score each: the `glue/` and `text:` kinds.
use std::path::PathBuf;

use super::glue::Task as GlueTask;
use super::labels::{self, Cell};
use super::sequences::Sequences;
use super::spec::Spec;
use super::table::{self, Columns, Row, column};
use super::tokenizer::Tokenizer;
use super::{Batch, Dataset, Fingerprint, Reading, Targets, Task, subset};
use crate::{Error, Result};

/// Tokenised texts and their targets, all in memory.
pub struct Texts {
    sequences: Sequences,
    targets: Targets,
    task: Task,
}

impl Texts {
    /// The rows of `files` (shards of one table), of GLUE task `glue` or of the columns `spec` names.
    pub(super) fn load(spec: &Spec, glue: Option<GlueTask>, files: &[PathBuf], how: &Reading) -> Result<Self> {
        let tokenizer = Tokenizer::load(how.tokenizer(spec)?)?;
        let choose = |file: &str, header: &[String]| match glue {
            Some(task) => task.choose(file, header),
            None => chosen(spec, file, header),
        };
        let mut rows: Vec<Row> = Vec::new();
        for file in files {
            rows.extend(table::read(file, &choose, spec.bad_lines)?.rows);
        }
        let (task, targets) = targets(spec, glue, &rows, how)?;
        let (rows, targets) = match subset(rows.len(), spec.limit, spec.seed) {
            None => (rows, targets),
            Some(kept) => (kept.iter().map(|&i| rows[i].clone()).collect(), targets.pick(&kept)),
        };
        let texts: Vec<(String, Option<String>)> = rows
            .into_iter()
            .map(|row| {
                let mut cells = row.cells.into_iter();
                let first = cells.next().unwrap_or_default();
                // The label is the last cell; whatever stands before it is the second text.
                (first, (cells.len() == 2).then(|| cells.next()).flatten())
            })
            .collect();
        let sequences = tokenizer.encode(&texts, how.max_length, how.with_types)?;
        how.check_vocabulary(sequences.largest_id().max(tokenizer.pad), spec)?;
        Ok(Self { sequences, targets, task })
    }
}

/// The columns a `text:` spec names, or the usual ones.
fn chosen(spec: &Spec, file: &str, header: &[String]) -> Result<Columns> {
    let one = |name: &Option<String>, usual: &[&str]| match name {
        Some(name) => column(file, header, &[name.as_str()]),
        None => column(file, header, usual),
    };
    let mut keep = vec![one(&spec.text, &["text", "sentence"])?];
    if let Some(second) = &spec.text2 {
        keep.push(column(file, header, &[second.as_str()])?);
    }
    keep.push(one(&spec.label, &["label"])?);
    Ok(Columns { keep, headless: false })
}

fn targets(spec: &Spec, glue: Option<GlueTask>, rows: &[Row], how: &Reading) -> Result<(Task, Targets)> {
    let cells: Vec<Cell> = rows.iter().map(|row| (&row.at, row.cells.last().map_or("", String::as_str))).collect();
    let outputs = how.labels.as_ref().map(Vec::len);
    let wanted = |what: &str, got: usize| {
        Error::data(
            spec.place(),
            format!("{what}, the model has {got} outputs"),
            "use a model trained for this task, or give it a new head with `fipk train --new-head`",
        )
    };
    let named = match glue {
        Some(task) => task.classes().map(|names| names.iter().map(|name| name.to_string()).collect()),
        None => spec.labels.clone(),
    };
    let has_scores = match glue {
        Some(task) => task.classes().is_none(),
        None => spec.regression || (spec.labels.is_none() && outputs == Some(1)),
    };
    if has_scores {
        if let Some(n) = outputs.filter(|&n| n != 1) {
            return Err(wanted("scores need a model with one output", n));
        }
        let range = glue.map(|_| (0.0, 5.0));
        return Ok((Task::Regression, Targets::Scores(labels::scores(&cells, range)?)));
    }
    if outputs == Some(1) {
        return Err(wanted("classes need a model with an output a class", 1));
    }
    let (names, classes) = labels::classes(&cells, named.as_deref(), how.labels.as_deref(), &spec.place())?;
    Ok((Task::Classification { labels: names }, Targets::Classes(classes)))
}

impl Dataset for Texts {
    fn len(&self) -> usize {
        self.sequences.len()
    }

    fn task(&self) -> &Task {
        &self.task
    }

    fn length(&self, example: usize) -> usize {
        self.sequences.length(example)
    }

    fn batch(&self, examples: &[usize], rows: usize, _epoch: u64) -> Result<Batch> {
        let rows = rows.max(examples.len());
        Ok(Batch {
            examples: examples.to_vec(),
            rows,
            inputs: self.sequences.inputs(examples, rows),
            targets: self.targets.pick(examples).padded(rows),
        })
    }

    fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::new("text");
        hash.task(&self.task);
        self.sequences.digest(&mut hash);
        hash.targets(&self.targets);
        hash.finish()
    }
}
