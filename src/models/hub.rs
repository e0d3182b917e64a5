//! From what the user calls a model, a path or a Hugging Face id, to a folder on disk.
use crate::{Error, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A Hugging Face id, `name` or `org/name`, with an optional `@revision` (a branch, a tag or a commit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    pub repository: String,
    pub revision: String,
}

impl HubId {
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let part = |p: &str| {
            !p.is_empty()
                && !p.starts_with(['.', '-'])
                && !p.contains("..")
                && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let valid =
            repository.split('/').count() <= 2 && repository.split('/').all(part) && revision.split('/').all(part);
        valid.then(|| Self { repository: repository.into(), revision: revision.into() })
    }

    /// The snapshot of this model in a cache laid out as `huggingface_hub` does, if there is one with a config.
    pub fn cached(&self, cache: &Path) -> Option<PathBuf> {
        let model = cache.join(format!("models--{}", self.repository.replace('/', "--")));
        let commit = fs::read_to_string(model.join("refs").join(&self.revision)).ok();
        let commit = commit.as_deref().map_or(self.revision.as_str(), str::trim);
        let snapshot = model.join("snapshots").join(commit);
        snapshot.join("config.json").exists().then_some(snapshot)
    }
}

/// The folder of `model`: itself if it is one, else the Hugging Face model of that id in the local cache, else,
/// with the feature `hub`, a download. `Error::Model` says what was tried.
pub fn locate(model: &str) -> Result<PathBuf> {
    locate_in(model, cache_dir())
}

fn locate_in(model: &str, cache: Option<PathBuf>) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.exists() {
        return Err(Error::model(
            model,
            "wanted a folder with a config.json, got a file",
            "name the folder it lies in",
        ));
    }
    let Some(id) = HubId::parse(model) else {
        return Err(Error::model(model, "no such folder (nor can it be a Hugging Face id)", "check the path"));
    };
    let Some(cache) = cache else {
        let what = "no such folder, and no Hugging Face cache to look in";
        return Err(Error::model(model, what, "check the path, or set HF_HOME"));
    };
    match id.cached(&cache) {
        Some(snapshot) => Ok(snapshot),
        None => fetch(model, &id, &cache),
    }
}

/// Where `huggingface_hub` keeps models: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `~/.cache/huggingface`.
pub fn cache_dir() -> Option<PathBuf> {
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || var("HOME").or_else(|| var("USERPROFILE")).map(|h| h.join(".cache"));
    var("HF_HUB_CACHE")
        .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| var("HF_HOME").map(|h| h.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").or_else(home).map(|c| c.join("huggingface").join("hub")))
}

#[cfg(not(feature = "hub"))]
fn fetch(model: &str, id: &HubId, cache: &Path) -> Result<PathBuf> {
    let what = format!("no such folder, and no Hugging Face model of that id in {}", cache.display());
    let hint = format!(
        "check the path, or fetch the model: hf download {} --revision {}, or build fipk with --features hub",
        id.repository, id.revision
    );
    Err(Error::model(model, what, hint))
}

/// Downloads the config, the tokenizer's files and the safetensors into the cache.
#[cfg(feature = "hub")]
fn fetch(model: &str, id: &HubId, cache: &Path) -> Result<PathBuf> {
    use crate::models::folder::COPIED_FILES;
    use crate::params::weights::{INDEX_FILE, SINGLE_FILE};
    use hf_hub::{Repo, RepoType, api::sync::ApiBuilder};

    let failed = |error: &dyn std::fmt::Display| {
        let what = format!("no such folder, and fetching the Hugging Face model of that id failed: {error}");
        let hint = format!("check the path, the id and the network, or try: hf download {}", id.repository);
        Error::model(model, what.replace('\n', " "), hint)
    };
    let api = ApiBuilder::from_env().with_cache_dir(cache.to_path_buf()).build().map_err(|e| failed(&e))?;
    let repo = api.repo(Repo::with_revision(id.repository.clone(), RepoType::Model, id.revision.clone()));
    let listed: Vec<String> =
        repo.info().map_err(|e| failed(&e))?.siblings.into_iter().map(|file| file.rfilename).collect();
    // One file if there is one, as it is preferred on opening; else the shards.
    let single = listed.iter().any(|name| name == SINGLE_FILE);
    let wanted = |name: &str| {
        let shard = name == INDEX_FILE || (name.ends_with(".safetensors") && name.starts_with("model-"));
        name == SINGLE_FILE || (!single && shard) || COPIED_FILES.contains(&name)
    };
    for name in listed.iter().filter(|name| wanted(name)) {
        repo.get(name).map_err(|e| failed(&e))?;
    }
    // Last, because a cached config is what says that a model is there.
    let config = repo.get("config.json").map_err(|e| failed(&e))?;
    config.parent().map(Path::to_path_buf).ok_or_else(|| failed(&"it has no config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = |r: &str, v: &str| Some(HubId { repository: r.into(), revision: v.into() });
        assert_eq!(HubId::parse("bert-base-uncased"), id("bert-base-uncased", "main"));
        assert_eq!(HubId::parse("google/bert_uncased@v1.0"), id("google/bert_uncased", "v1.0"));
        for path in ["", "/", "/abs/path", "./here", "../up", "a/b/c", "a//b", "a/..", "a b", "x@", "x@../y"] {
            assert_eq!(HubId::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_cache_is_searched_as_huggingface_hub_lays_it_out() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--name");
        for (dir, file, text) in [("refs", "main", "abc123\n"), ("snapshots/abc123", "config.json", "{}")] {
            fs::create_dir_all(model.join(dir)).unwrap();
            fs::write(model.join(dir).join(file), text).unwrap();
        }
        let find = |name: &str| locate_in(name, Some(cache.path().to_path_buf()));
        assert_eq!(find("org/name").unwrap(), model.join("snapshots/abc123"));
        assert_eq!(find("org/name@abc123").unwrap(), model.join("snapshots/abc123"));
        assert_eq!(find(model.to_str().unwrap()).unwrap(), model);
        #[cfg(not(feature = "hub"))]
        for typo in ["org/nam", "org/name@other"] {
            let error = find(typo).unwrap_err().to_string();
            assert!(error.contains("no such folder") && error.contains("Hugging Face"), "{error}");
            assert!(error.contains("hf download") && error.contains("--features hub"), "{error}");
        }
        let file = model.join("refs/main");
        assert!(find(file.to_str().unwrap()).unwrap_err().to_string().contains("got a file"));
        assert!(find("/no/such/folder").unwrap_err().to_string().contains("no such folder"));
    }
}
