//! Text to token ids: `tokenizer.json`, or a WordPiece `vocab.txt`, of a model folder.
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::{EncodeInput, TruncationParams};

use super::files;
use super::sequences::Sequences;
use crate::{Error, Result};

/// A model's tokenizer and the ids of its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: String,
    /// What fills the end of a short sequence.
    pub pad: u32,
    /// What hides a token from a masked language model, if there is such a token.
    pub mask: Option<u32>,
    /// All special tokens, sorted.
    pub special: Vec<u32>,
    /// Special tokens before and after a single text.
    pub frame: (Vec<u32>, Vec<u32>),
}

impl Tokenizer {
    /// Reads `tokenizer.json` from `folder`, else `vocab.txt` with the settings of `tokenizer_config.json`.
    ///
    /// Truncation and padding set in the file are dropped: how long a sequence may be is the caller's to say.
    ///
    /// # Errors
    /// [`Error::Model`] when there is neither file, or one that cannot be used.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = special_names(folder)?;
        let (json, vocab) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
        let (path, mut inner) = if json.is_file() {
            let bytes = std::fs::read(&json).map_err(Error::io("read", &json))?;
            let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| {
                Error::model(json.display().to_string(), format!("no tokenizer: {cause}"), "fetch the file again")
            })?;
            (json, inner)
        } else if vocab.is_file() {
            let inner = wordpiece(&vocab, &config)?;
            (vocab, inner)
        } else {
            return Err(Error::model(
                folder.display().to_string(),
                "wanted tokenizer.json or vocab.txt, found neither",
                "copy the tokenizer's files into the model folder; text data cannot be read without them",
            ));
        };
        let file = path.display().to_string();
        let failed = |cause: tokenizers::Error| Error::model(file.clone(), cause.to_string(), "fetch the file again");
        let padding = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;

        let id = |role: &str, usual: &[&str]| {
            let named = config.get(role).and_then(token_text);
            named.iter().chain(usual).find_map(|token| inner.token_to_id(token))
        };
        let pad = id("pad_token", &["[PAD]", "<pad>"]).or(padding).ok_or_else(|| {
            Error::model(file.clone(), "the tokenizer has no padding token", "name pad_token in tokenizer_config.json")
        })?;
        let mask = id("mask_token", &["[MASK]", "<mask>"]);
        let roles = ["cls_token", "sep_token", "unk_token", "bos_token", "eos_token"];
        let added = inner.get_added_tokens_decoder();
        let mut special: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        special.extend(roles.iter().filter_map(|role| id(role, &[])).chain([pad]).chain(mask));
        special.sort_unstable();
        special.dedup();

        // What surrounds a text is read off an encoded letter: the special tokens before and after it.
        let sample = inner.encode_fast("a", true).map_err(failed)?;
        let is_text: Vec<bool> = sample.get_special_tokens_mask().iter().map(|&special| special == 0).collect();
        let before = is_text.iter().position(|&text| text).unwrap_or(is_text.len());
        let after = is_text.iter().rposition(|&text| text).map_or(is_text.len(), |at| at + 1);
        let frame = (sample.get_ids()[..before].to_vec(), sample.get_ids()[after..].to_vec());
        Ok(Self { inner, file, pad, mask, special, frame })
    }

    /// How many ids there are, added tokens included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of `text` without special tokens and without a limit.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(|cause| self.failed(cause))?.get_ids().to_vec())
    }

    /// Encodes every text, or pair of texts, with special tokens, cut to `max_length` tokens (of a pair the longer
    /// text gives way first). In parallel, in order.
    ///
    /// # Errors
    /// [`Error::Usage`] when `max_length` leaves no room for text; [`Error::Model`] from the tokenizer.
    pub fn encode<T: AsRef<str> + Sync>(
        &self,
        texts: &[(T, Option<T>)],
        max_length: usize,
        with_types: bool,
    ) -> Result<Sequences> {
        // A pair has two texts and one more separator.
        if max_length < self.frame.0.len() + 2 * self.frame.1.len() + 2 {
            return Err(Error::usage(
                "maximum sequence length",
                format!("{max_length} tokens leave no room between the special ones"),
                "allow at least 8, better 64 or more",
            ));
        }
        let mut inner = self.inner.clone();
        let cut = TruncationParams { max_length, ..TruncationParams::default() };
        inner.with_truncation(Some(cut)).map_err(|cause| self.failed(cause))?;
        let encodings: Vec<(Vec<u32>, Vec<u32>)> = texts
            .par_iter()
            .map(|(first, second)| {
                let input: EncodeInput = match second {
                    Some(second) => (first.as_ref(), second.as_ref()).into(),
                    None => first.as_ref().into(),
                };
                let encoding = inner.encode_fast(input, true).map_err(|cause| self.failed(cause))?;
                Ok((
                    encoding.get_ids().to_vec(),
                    if with_types { encoding.get_type_ids().to_vec() } else { Vec::new() },
                ))
            })
            .collect::<Result<_>>()?;
        let mut sequences = Sequences::new(self.pad, max_length, with_types);
        for (ids, types) in &encodings {
            sequences.push(ids, types);
        }
        Ok(sequences)
    }

    fn failed(&self, cause: tokenizers::Error) -> Error {
        Error::model(self.file.clone(), format!("the tokenizer failed: {cause}"), "check the tokenizer's files")
    }
}

/// A token is written as its text or as an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// `tokenizer_config.json` over `special_tokens_map.json`; either may be absent.
fn special_names(folder: &Path) -> Result<Map<String, Value>> {
    let mut names = Map::new();
    for name in ["special_tokens_map.json", "tokenizer_config.json"] {
        let path = folder.join(name);
        if path.is_file() {
            let map: Map<String, Value> = serde_json::from_str(&files::read_text(&path)?).map_err(|cause| {
                Error::model(
                    path.display().to_string(),
                    format!("wanted a JSON object: {cause}"),
                    "fetch the file again",
                )
            })?;
            names.extend(map);
        }
    }
    Ok(names)
}

/// BERT's WordPiece from a vocabulary of a token a line, with the defaults of `transformers`' `BertTokenizer`.
fn wordpiece(vocab: &Path, config: &Map<String, Value>) -> Result<tokenizers::Tokenizer> {
    let place = vocab.display().to_string();
    let text = files::read_text(vocab)?;
    let ids: Map<String, Value> =
        text.lines().enumerate().map(|(i, line)| (line.trim().to_string(), i.into())).collect();
    let name = |role: &str, usual: &str| config.get(role).and_then(token_text).unwrap_or(usual).to_string();
    let setting = |key: &str, usual: Value| config.get(key).cloned().unwrap_or(usual);
    let required = |token: String| match ids.get(&token) {
        Some(id) => Ok((token, id.clone())),
        None => {
            let what = format!("no `{token}` among its {} tokens", ids.len());
            Err(Error::model(
                place.clone(),
                what,
                "use BERT's own vocab.txt, or name its tokens in tokenizer_config.json",
            ))
        }
    };
    let (unknown, cls, sep) = (
        required(name("unk_token", "[UNK]"))?,
        required(name("cls_token", "[CLS]"))?,
        required(name("sep_token", "[SEP]"))?,
    );
    // A token the vocabulary lacks is left out: added behind it, its id would lie past the model's embedding.
    let optional = [name("pad_token", "[PAD]"), name("mask_token", "[MASK]")];
    let optional = optional.into_iter().filter_map(|token| required(token).ok());
    let added: Vec<Value> = [unknown.clone(), cls.clone(), sep.clone()]
        .into_iter()
        .chain(optional)
        .map(|(content, id)| {
            json!({"id": id, "content": content, "special": true,
                   "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": setting("tokenize_chinese_chars", true.into()),
            "strip_accents": setting("strip_accents", Value::Null),
            "lowercase": setting("do_lower_case", true.into()),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1]},
        "decoder": null,
        "model": {
            "type": "WordPiece",
            "unk_token": unknown.0,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    });
    tokenizers::Tokenizer::from_bytes(whole.to_string()).map_err(|cause| {
        let what = format!("no WordPiece tokenizer: {cause}");
        Error::model(place, what, "check it and tokenizer_config.json")
    })
}
