//! What the query API tells of rules and alerts.

use std::collections::BTreeMap;

use millrace_model::Labels;
use millrace_query::ReadScope;
use millrace_query::api::{Alert, Alerting, Health, Rule, RuleGroup, Rules};

use crate::RuleManager;
use crate::alert::{ActiveAlert, AlertState};
use crate::config::{RuleKind, RuleSpec};
use crate::group::{Group, RuleState};

impl Rules for RuleManager {
    /// Those of the tenant. Whoever is bound to labels sees only alerts that have them.
    fn groups(&self, scope: &ReadScope) -> Vec<RuleGroup> {
        let groups = self.groups().into_iter();
        let groups = groups.filter(|group| group.spec.tenant == scope.tenant);
        groups.map(|group| shown(&group, scope)).collect()
    }

    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        Self::alertmanagers(self)
    }
}

fn shown(group: &Group, scope: &ReadScope) -> RuleGroup {
    let last = *group.last.lock();
    let rules = group.spec.rules.iter().zip(&group.rules);
    RuleGroup {
        name: group.spec.name.clone(),
        file: group.spec.file.display().to_string(),
        rules: rules
            .map(|(spec, state)| rule(spec, &state.lock(), scope))
            .collect(),
        interval: group.spec.interval,
        limit: group.spec.limit,
        evaluation_time: last.took,
        last_evaluation: last.began,
    }
}

fn rule(spec: &RuleSpec, state: &RuleState, scope: &ReadScope) -> Rule {
    Rule {
        name: spec.name.clone(),
        query: spec.query.clone(),
        labels: spec.labels.clone(),
        health: match state.good {
            None => Health::Unknown,
            Some(true) => Health::Good,
            Some(false) => Health::Bad,
        },
        last_error: state.last_error.clone(),
        evaluation_time: state.took,
        last_evaluation: state.last,
        alerting: match &spec.kind {
            RuleKind::Recording => None,
            RuleKind::Alerting(own) => Some(Alerting {
                hold: own.hold,
                keep_firing: own.keep_firing,
                annotations: own.annotations.clone(),
                alerts: state
                    .alerts
                    .shown()
                    .filter(|alert| sees(scope, &alert.labels))
                    .map(alert)
                    .collect(),
            }),
        },
    }
}

fn sees(scope: &ReadScope, labels: &Labels) -> bool {
    let mut bound = scope.labels.iter();
    bound.all(|(name, value)| labels.get(name) == Some(value))
}

fn alert(alert: &ActiveAlert) -> Alert {
    let texts = |labels: &Labels| -> BTreeMap<String, String> {
        let pairs = labels.iter();
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    Alert {
        labels: texts(&alert.labels),
        annotations: alert.annotations.iter().cloned().collect(),
        firing: alert.state == AlertState::Firing,
        active_at: alert.active_at,
        keep_firing_since: alert.keep_firing_since,
        value: alert.value,
    }
}
