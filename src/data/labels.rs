//! From the label cells of a file to the model's classes or to scores, checking each.
use std::collections::{BTreeMap, HashMap};

use super::table::Place;
use crate::{Error, Result};

/// What to do where a model's outputs are not the data's classes.
pub(super) const NEW_HEAD: &str =
    "use a model with an output a class, or give it a new head with `fipk train --new-head`";

/// Most classes a column of whole numbers may imply by itself.
const MOST_CLASSES: usize = 1 << 16;

/// A label as it stands in a file, and where.
pub type Cell<'a> = (&'a Place, &'a str);

/// The names Hugging Face gives the classes of a head nobody named: `LABEL_0`, `LABEL_1`, ..
pub fn unnamed(classes: usize) -> Vec<String> {
    (0..classes).map(|i| format!("LABEL_{i}")).collect()
}

/// Whether names say nothing beyond their position: `LABEL_2` or `2` in place 2.
fn says_nothing(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| {
        name.parse() == Ok(i) || name.to_uppercase().strip_prefix("LABEL_").is_some_and(|n| n.parse() == Ok(i))
    })
}

/// `Not entailment`, `not-entailment` and `NOT_ENTAILMENT` are one name.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

fn number(cell: &str) -> Option<i64> {
    let cell = cell.trim();
    // Tables written through floating point have 1.0 for 1.
    cell.strip_suffix(".0").unwrap_or(cell).parse().ok()
}

/// Class names and a number for each name in use.
struct Classes {
    /// What the model's outputs are called, in order.
    outputs: Vec<String>,
    /// Output of the file's class number i; empty where a number in a cell can only be a name.
    by_number: Vec<i32>,
    by_name: HashMap<String, i32>,
}

/// The class of every cell, and the names of the model's outputs.
///
/// `known` are the classes' names in the order of the numbers the *file* uses (GLUE's, or `?labels=`); `model` the
/// names of the *model's* outputs (its `id2label`). A file's class goes to the output of the same name; where the
/// model's names say nothing (`LABEL_0`), or there is no model yet, numbers are taken as they are.
///
/// # Errors
/// [`Error::Data`] at the first label that is not one of the classes, or when the names do not match the model's.
pub fn classes(
    cells: &[Cell],
    known: Option<&[String]>,
    model: Option<&[String]>,
    place: &str,
) -> Result<(Vec<String>, Vec<i32>)> {
    let classes = match (known, model) {
        (Some(known), _) => match_names(known, model, place)?,
        (None, Some(model)) => match_names(model, None, place)?,
        (None, None) => match_names(&found(cells)?, None, place)?,
    };
    let class = |&(at, cell): &Cell| {
        let by_name = || classes.by_name.get(&plain(cell)).copied();
        let by_number = || classes.by_number.get(usize::try_from(number(cell)?).ok()?).copied();
        by_name().or_else(by_number).ok_or_else(|| {
            let numbers = classes.by_number.len().checked_sub(1).map(|last| format!("0..={last}"));
            let names = known.or(model).map(|names| shortened(names.join(", ")));
            let allowed: Vec<String> = numbers.into_iter().chain(names).collect();
            Error::data(
                at.to_string(),
                format!("label `{}` is not one of {}", cell.trim(), allowed.join(" or ")),
                match number(cell) {
                    Some(-1) => "-1 marks labels that were kept back, as in GLUE's test split; choose ?split=dev",
                    _ => "correct it, name the classes with ?labels=a,b,.. on a text: spec, or use a model with that many, or `fipk train --new-head`",
                },
            )
        })
    };
    let numbers = cells.iter().map(class).collect::<Result<_>>()?;
    Ok((classes.outputs, numbers))
}

/// Sends each of the `known` classes to the output of `model` with its name.
fn match_names(known: &[String], model: Option<&[String]>, place: &str) -> Result<Classes> {
    let (outputs, by_number): (&[String], Vec<i32>) = match model {
        None => (known, (0..known.len() as i32).collect()),
        Some(model) if says_nothing(model) && model.len() == known.len() => (known, (0..known.len() as i32).collect()),
        Some(model) if says_nothing(model) && model.len() > known.len() => (model, (0..known.len() as i32).collect()),
        Some(model) => {
            let output = |name: &String| model.iter().position(|m| plain(m) == plain(name)).map(|i| i as i32);
            let Some(by_number) = known.iter().map(output).collect() else {
                return Err(Error::data(
                    place,
                    format!("the data's classes are {}, the model's {}", known.join(", "), shortened(model.join(", "))),
                    format!(
                        "set id2label in the model's config.json to the data's names, in the model's order; or {NEW_HEAD}"
                    ),
                ));
            };
            (model, by_number)
        }
    };
    let by_name = known.iter().zip(&by_number).map(|(name, &class)| (plain(name), class)).collect();
    // Stars called 1 to 5 are names: taken as positions too, a stray 0 would count as one star.
    let ambiguous = !says_nothing(known) && known.iter().any(|name| number(name).is_some());
    Ok(Classes { outputs: outputs.to_vec(), by_number: if ambiguous { Vec::new() } else { by_number }, by_name })
}

/// The classes that `words` choose of `names`, in that order: names, numbers, and ranges of numbers as `0-9`.
///
/// # Errors
/// [`Error::Usage`] for a word that is none of them, or a class that is chosen twice.
pub(super) fn chosen(words: &[String], names: &[String], place: &str) -> Result<Vec<usize>> {
    let mut all: Vec<usize> = Vec::new();
    for word in words {
        let number = |text: &str| text.trim().parse().ok().filter(|&class: &usize| class < names.len());
        let range = || {
            let (first, last) = word.split_once('-')?;
            Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
        };
        let by_name = names.iter().position(|name| plain(name) == plain(word));
        let classes: Vec<usize> = match (by_name.or_else(|| number(word)), range()) {
            (Some(class), _) => vec![class],
            (None, Some((first, last))) => (first..=last).collect(),
            (None, None) => {
                let what = format!("classes: `{word}` is none of 0..={}", names.len().saturating_sub(1));
                return Err(Error::usage(place, what, format!("the classes are {}", shortened(names.join(", ")))));
            }
        };
        if let Some(class) = classes.iter().find(|class| all.contains(class)) {
            let what = format!("classes: {} is chosen twice", names[*class]);
            return Err(Error::usage(place, what, "choose each class once"));
        }
        all.extend(classes);
    }
    Ok(all)
}

/// What the model's outputs are called, and the output of each of the data's classes; -1 for a class that is not
/// chosen.
///
/// Classes go to the outputs of the same name. Positions decide where one side has no names, or both have the same
/// (ImageNet has two `crane`s, and models know classes by all their synonyms): outputs as many as there are chosen
/// classes are these in their order, at least as many as there are classes are all of them.
///
/// # Errors
/// [`Error::Data`] when neither goes.
pub(super) fn outputs(
    names: &[String],
    chosen: Option<&[usize]>,
    model: Option<&[String]>,
    place: &str,
) -> Result<(Vec<String>, Vec<i32>)> {
    let all: Vec<usize> = (0..names.len()).collect();
    let chosen = chosen.unwrap_or(&all);
    let chosen_names: Vec<String> = chosen.iter().map(|&class| names[class].clone()).collect();
    let first = |name: &str| plain(name.split(',').next().unwrap_or_default());
    let same = |model: &[String]| {
        model.len() == names.len() && model.iter().zip(names).all(|(model, name)| first(model) == first(name))
    };
    let positions = model.filter(|model| says_nothing(model) || says_nothing(names) || same(model));
    let (outputs, at): (Vec<String>, Vec<i32>) = match positions {
        Some(model) if model.len() >= names.len() && (chosen.len() < model.len() || chosen == all) => {
            let own = if says_nothing(model) && model.len() == names.len() { names } else { model };
            (own.to_vec(), chosen.iter().map(|&class| class as i32).collect())
        }
        Some(model) if model.len() == chosen.len() => {
            let own = if says_nothing(model) { &chosen_names[..] } else { model };
            (own.to_vec(), (0..chosen.len() as i32).collect())
        }
        Some(model) => {
            let what = format!("the data has {} classes, the model {} outputs", chosen.len(), model.len());
            return Err(Error::data(place, what, NEW_HEAD));
        }
        None if model.is_none() => {
            let at = (0..chosen.len() as i32).collect();
            (chosen_names, at)
        }
        None => {
            let found = match_names(&chosen_names, model, place)?;
            let at = chosen_names.iter().map(|name| found.by_name.get(&plain(name)).copied().unwrap_or(-1));
            (found.outputs, at.collect())
        }
    };
    let mut output = vec![-1; names.len()];
    chosen.iter().zip(at).for_each(|(&class, at)| output[class] = at);
    Ok((outputs, output))
}

/// The classes a column implies: 0 up to its largest number, or its distinct names in alphabetical order.
fn found(cells: &[Cell]) -> Result<Vec<String>> {
    let wrong = |at: &Place, what: String, hint: &str| Err(Error::data(at.to_string(), what, hint));
    let numeric = cells.first().is_some_and(|(_, cell)| number(cell).is_some());
    let mut largest = 0;
    for &(at, cell) in cells {
        match number(cell) {
            Some(n) if numeric && usize::try_from(n).is_ok_and(|n| n < MOST_CLASSES) => {
                largest = largest.max(n as usize)
            }
            Some(n) if numeric => {
                let what = format!("label `{n}` is not one of 0..={}", MOST_CLASSES - 1);
                return wrong(at, what, "choose the column of the class with ?label=, or ?task=regression for scores");
            }
            None if cell.trim().parse::<f64>().is_ok() => {
                let what = format!("wanted the number or name of a class, got the fraction `{}`", cell.trim());
                return wrong(at, what, "add ?task=regression for scores");
            }
            other if other.is_some() != numeric => {
                let (wanted, got) = if numeric { ("number", "name") } else { ("name", "number") };
                let what =
                    format!("wanted the {wanted} of a class as in the first row, got the {got} `{}`", cell.trim());
                return wrong(at, what, "correct the line, or name all classes with ?labels=a,b,..");
            }
            _ => {}
        }
    }
    if numeric {
        return Ok((0..=largest).map(|i| i.to_string()).collect());
    }
    // Spellings that count as one name are one class.
    let names: BTreeMap<String, &str> = cells.iter().map(|(_, cell)| (plain(cell), cell.trim())).collect();
    Ok(names.into_values().map(str::to_string).collect())
}

/// The score of every cell, within `range` if there is one.
///
/// # Errors
/// [`Error::Data`] at the first cell that is not a finite number in it.
pub fn scores(cells: &[Cell], range: Option<(f32, f32)>) -> Result<Vec<f32>> {
    let (low, high) = range.unwrap_or((f32::MIN, f32::MAX));
    let score = |&(at, cell): &Cell| match cell.trim().parse::<f32>() {
        Ok(score) if (low..=high).contains(&score) => Ok(score),
        _ => Err(Error::data(
            at.to_string(),
            match range {
                Some(_) => format!("wanted a score from {low} to {high}, got `{}`", cell.trim()),
                None => format!("wanted a finite score, got `{}`", cell.trim()),
            },
            "correct the line, or choose the column with ?label=",
        )),
    };
    cells.iter().map(score).collect()
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.replace_range(end.., "..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::spec::BadLines;
    use crate::data::table::{Columns, tsv};

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn run(cells: &[&str], known: &[&str], model: &[&str]) -> Result<(Vec<String>, Vec<i32>), String> {
        let some = |names: &[&str]| (!names.is_empty()).then(|| owned(names));
        let text = format!("l\n{}", cells.join("\n"));
        let keep = |_: &str, _: &[String]| Ok(Columns { keep: vec![0], headless: false });
        let rows = tsv(&text, "f", &keep, BadLines::Refuse).unwrap().rows;
        let cells: Vec<Cell> = rows.iter().map(|row| (&row.at, row.cells[0].as_str())).collect();
        classes(&cells, some(known).as_deref(), some(model).as_deref(), "spec").map_err(|error| error.to_string())
    }

    #[test]
    fn chosen_classes_go_to_the_models_outputs() {
        let names = owned(&["ant", "bee", "cat", "dog"]);
        let pick = |words: &[&str]| chosen(&owned(words), &names, "spec").map_err(|error| error.to_string());
        assert_eq!(pick(&["2-3", "Ant"]), Ok(vec![2, 3, 0]));
        assert!(pick(&["4"]).unwrap_err().contains("`4` is none of 0..=3"));
        assert!(pick(&["3-2"]).is_err() && pick(&["0-1", "bee"]).unwrap_err().contains("bee is chosen twice"));
        let of = |chosen: Option<&[usize]>, model: Option<&[String]>| outputs(&names, chosen, model, "spec");
        // No model: as many outputs as are chosen.
        assert_eq!(of(Some(&[2, 0]), None).unwrap(), (owned(&["cat", "ant"]), vec![1, -1, 0, -1]));
        assert_eq!(of(None, None).unwrap(), (names.clone(), vec![0, 1, 2, 3]));
        // A model without names: all classes, or the chosen ones.
        assert_eq!(of(Some(&[2, 0]), Some(&unnamed(4))).unwrap(), (names.clone(), vec![0, -1, 2, -1]));
        assert_eq!(of(Some(&[2, 0]), Some(&unnamed(2))).unwrap(), (owned(&["cat", "ant"]), vec![1, -1, 0, -1]));
        assert!(of(Some(&[2, 0]), Some(&unnamed(3))).unwrap_err().to_string().contains("2 classes, the model 3"));
        assert_eq!(of(None, Some(&unnamed(6))).unwrap(), (unnamed(6), vec![0, 1, 2, 3]));
        // A model with names.
        let model = owned(&["dog", "cat", "bee", "ant", "elk"]);
        assert_eq!(of(Some(&[2, 0]), Some(&model)).unwrap(), (model.clone(), vec![3, -1, 1, -1]));
        assert!(of(Some(&[2]), Some(&owned(&["dog", "elk"]))).unwrap_err().to_string().contains("cat"));
        let imagenet = owned(&["ant, Formica", "bee", "cat, true cat", "dog"]);
        assert_eq!(of(Some(&[2]), Some(&imagenet)).unwrap(), (imagenet, vec![-1, -1, 2, -1]));
        let numbers = owned(&["0", "1", "2"]);
        assert_eq!(outputs(&numbers, None, Some(&model), "spec").unwrap(), (model, vec![0, 1, 2]));
    }

    const NLI: &[&str] = &["entailment", "neutral", "contradiction"];

    #[test]
    fn labels_follow_the_models_names() {
        let cells = ["neutral", "Contradiction", "0", "2.0"];
        assert_eq!(run(&cells, NLI, &[]), Ok((owned(NLI), vec![1, 2, 0, 2])));
        assert_eq!(run(&cells, NLI, &["LABEL_0", "LABEL_1", "LABEL_2"]), Ok((owned(NLI), vec![1, 2, 0, 2])));
        let roberta = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"];
        assert_eq!(run(&cells, NLI, &roberta), Ok((owned(&roberta), vec![1, 0, 2, 0])));
        assert!(run(&cells, NLI, &["yes", "no", "maybe"]).unwrap_err().contains("the model's yes, no, maybe"));
        assert!(run(&cells, NLI, &["0", "1"]).unwrap_err().contains("the model's 0, 1"));
        assert_eq!(run(&["1"], NLI, &["0", "1", "2", "3"]), Ok((owned(&["0", "1", "2", "3"]), vec![1])));
    }

    #[test]
    fn unknown_classes_come_from_the_column_or_the_model() {
        assert_eq!(run(&["3", "0", "1"], &[], &[]), Ok((owned(&["0", "1", "2", "3"]), vec![3, 0, 1])));
        assert_eq!(run(&["pos", "neg", "pos"], &[], &[]), Ok((owned(&["neg", "pos"]), vec![1, 0, 1])));
        assert_eq!(run(&["Pos", "neg", "pos"], &[], &[]), Ok((owned(&["neg", "pos"]), vec![1, 0, 1])));
        assert_eq!(run(&["1", "3"], &["1", "2", "3"], &[]), Ok((owned(&["1", "2", "3"]), vec![0, 2])));
        assert_eq!(run(&["pos", "1"], &[], &["NEG", "POS"]), Ok((owned(&["NEG", "POS"]), vec![1, 1])));
        assert_eq!(run(&["pos"], &["neg", "pos"], &["LABEL_0", "LABEL_1"]), Ok((owned(&["neg", "pos"]), vec![1])));
    }

    #[test]
    fn a_label_that_is_no_class_is_named_with_its_place() {
        let says = |result: Result<_, String>, parts: &[&str]| {
            let error = result.expect_err("must fail");
            assert!(parts.iter().all(|part| error.contains(part)), "`{error}` does not say {parts:?}");
        };
        says(run(&["0", "3"], NLI, &[]), &["f:3", "label `3`", "0..=2", "entailment"]);
        says(run(&["-1"], NLI, &[]), &["f:2", "kept back"]);
        says(run(&["pos"], &[], &["LABEL_0", "LABEL_1"]), &["f:2", "`pos`", "0..=1", "?labels="]);
        says(run(&["2"], &[], &["a", "b"]), &["label `2`", "0..=1"]);
        says(run(&["-1"], &[], &[]), &["f:2", "-1"]);
        says(run(&["1", "99999999"], &[], &[]), &["f:3", "99999999", "0..=65535"]);
        says(run(&["1", "oops"], &[], &[]), &["f:3", "name `oops`", "?labels="]);
        says(run(&["good", "1"], &[], &[]), &["f:3", "number `1`"]);
        says(run(&["1", "0"], &["1", "2", "3"], &[]), &["f:3", "label `0` is not one of 1, 2, 3"]);
        says(run(&["1", "2.5"], &[], &[]), &["f:3", "2.5", "regression"]);
    }
}
