//! Which parameters a run prunes, trains and leaves alone: globs on their names.
use super::Role;
use crate::graph::{Kind, Param};
use crate::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// Globs on parameter names; `*` also crosses dots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// If any, exactly the parameters that match are prunable, in place of the default set: weight
    /// matrices of the body (METHOD, algorithm 2).
    pub include: Vec<String>,
    /// Never pruned.
    pub exclude: Vec<String>,
    /// Neither trained nor pruned.
    pub freeze: Vec<String>,
}

/// The globs of one flag, compiled.
struct Globs<'a>(&'static str, Vec<(&'a str, GlobMatcher)>);

impl<'a> Globs<'a> {
    fn new(flag: &'static str, patterns: &'a [String]) -> Result<Self> {
        let compile = |p: &'a String| {
            let glob = GlobBuilder::new(p).literal_separator(false).build().map_err(|e| {
                Error::usage(
                    format!("{flag} '{p}'"),
                    format!("not a glob: {}", e.kind()),
                    "use *, ? and [..] on parameter names",
                )
            })?;
            Ok((p.as_str(), glob.compile_matcher()))
        };
        Ok(Self(flag, patterns.iter().map(compile).collect::<Result<_>>()?))
    }
    fn matches(&self, param: &Param) -> bool {
        self.1.iter().any(|(_, g)| names(param).any(|n| g.is_match(n)))
    }
    /// A glob that matches nothing is a typing error, not a wish.
    fn check(&self, params: &[Param]) -> Result<()> {
        match self.1.iter().find(|(_, g)| !params.iter().any(|p| names(p).any(|n| g.is_match(n)))) {
            None => Ok(()),
            Some((pattern, _)) => Err(Error::usage(
                format!("{} '{pattern}'", self.0),
                format!("matches none of the {} parameters", params.len()),
                "list their names and roles with `fipk sparsify .. --dry-run`",
            )),
        }
    }
}

fn names(param: &Param) -> impl Iterator<Item = &String> {
    std::iter::once(&param.name).chain(&param.aliases)
}

impl Roles {
    /// One role a parameter.
    ///
    /// # Errors
    /// [`Error::Usage`] on a glob that is malformed or matches no parameter.
    pub fn resolve(&self, params: &[Param]) -> Result<Vec<Role>> {
        let include = Globs::new("--include", &self.include)?;
        let exclude = Globs::new("--exclude", &self.exclude)?;
        let freeze = Globs::new("--freeze", &self.freeze)?;
        for globs in [&include, &exclude, &freeze] {
            globs.check(params)?;
        }
        let role = |p: &Param| {
            let wanted = if self.include.is_empty() { p.kind == Kind::Weight } else { include.matches(p) };
            match (freeze.matches(p) || p.kind == Kind::Statistic, wanted && !exclude.matches(p)) {
                (true, _) => Role::Frozen,
                (_, true) => Role::Prunable,
                _ => Role::Free,
            }
        };
        Ok(params.iter().map(role).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Vec<Param> {
        let param = |name: &str, kind| Param { name: name.into(), shape: vec![2, 2], kind, aliases: vec![] };
        vec![
            param("a.query.weight", Kind::Weight),
            param("a.query.bias", Kind::Bias),
            param("classifier.weight", Kind::Head),
        ]
    }
    fn globs(p: &[&str]) -> Vec<String> {
        p.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn body_weights_are_the_default() {
        assert_eq!(Roles::default().resolve(&params()).unwrap(), [Role::Prunable, Role::Free, Role::Free]);
    }

    #[test]
    fn globs_replace_remove_and_freeze() {
        let roles = Roles { include: globs(&["*.weight"]), exclude: globs(&["a.*"]), freeze: globs(&["*.bias"]) };
        assert_eq!(roles.resolve(&params()).unwrap(), [Role::Free, Role::Frozen, Role::Prunable]);
    }

    #[test]
    fn a_glob_without_a_match_is_an_error_that_names_it() {
        let roles = Roles { exclude: globs(&["bert.*"]), ..Roles::default() };
        let text = roles.resolve(&params()).unwrap_err().to_string();
        assert!(text.contains("--exclude 'bert.*'") && text.contains("matches none of the 3 parameters"), "{text}");
    }
}
