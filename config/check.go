package config

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// The metrics providers that a rollout may name.
const (
	ProviderRouter     = "router"
	ProviderPrometheus = "prometheus"
	ProviderHTTP       = "http"
	ProviderSQL        = "sql"
)

var providers = []string{ProviderRouter, ProviderPrometheus, ProviderHTTP, ProviderSQL}

// Bounds on a rollout.
const (
	maxStages      = 50
	maxChecks      = 100 // of one stage
	maxFreezes     = 20
	maxDefinitions = 50
	maxDuration    = 90 * 24 * time.Hour
	maxRequests    = 1_000_000_000_000
	minInterval    = 100 * time.Millisecond
	maxInterval    = time.Hour
	minLease       = time.Second
	minNoData      = time.Second
	leaseIntervals = 3 // a lease must outlast this many polls, so that one slow poll does not end it
)

// CheckSpec checks a Spec that came as JSON by the rules of rollout files. Errors are Problems with paths and without lines.
func CheckSpec(spec rollout.Spec) error {
	var problems Problems
	checkSpec(spec, func(path, format string, args ...any) {
		problems = append(problems, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	})
	return problems.err()
}

// checkSpec reports everything that is wrong with spec.
func checkSpec(spec rollout.Spec, tell report) {
	fine := true
	r := report(func(path, format string, args ...any) {
		fine = false
		tell(path, format, args...)
	})
	checkNames(spec, r)
	checkOneOf(spec.Criticality, "criticality", r, rollout.Standard, rollout.Conversational, rollout.SafetyCritical)
	checkTraffic(spec, r.under("traffic"))
	checkPlane(spec, r)
	checkMetrics(spec.Metrics, r.under("metrics"))
	checkAnalysis(spec.Analysis, r.under("analysis"))
	checkSettle(spec, r.under("analysis"))
	checkVariance(spec, r.under("analysis"))
	checkStages(spec.Stages, r)
	checkNotify(spec.Notify, r.under("notify"))
	checkChecks(spec, r)
	if fine {
		checkTogether(spec, tell)
	}
}

func checkNames(spec rollout.Spec, r report) {
	for _, n := range []struct{ path, value, what string }{
		{"agent", spec.Agent, "the agent's name"},
		{"stable", spec.Stable, "the version that users have now"},
		{"canary", spec.Canary, "the version to bring out"},
	} {
		switch {
		case n.value == "":
			r(n.path, "is missing, want %s, here or by the flag --%s", n.what, n.path)
		case !rollout.ValidName(n.value):
			r(n.path, "%s is not a name, want %s", quote(n.value), rollout.NamePattern)
		}
	}
	if spec.Stable != "" && spec.Stable == spec.Canary {
		r("canary", "%s is the stable version too, want another one", quote(spec.Canary))
	}
}

// checkOneOf wants a word of a list.
func checkOneOf[T ~string](value T, path string, r report, allowed ...T) {
	if !slices.Contains(allowed, value) {
		message := quote(string(value))
		if value == "" {
			message = "is missing"
		}
		r(path, "%s, want %s", message, oneOf(allowed...))
	}
}

func checkProvider(provider, path string, r report) { checkOneOf(provider, path, r, providers...) }

func checkTarget(target, path string, r report) {
	if !rollout.ValidName(target) {
		r(path, "%s is not a name, want %s, as the worker's settings name it", quote(target), rollout.NamePattern)
	}
}

func checkTraffic(spec rollout.Spec, r report) {
	t := spec.Traffic
	checkDriver(t.Driver, "driver", r)
	checkTarget(t.Target, "target", r)
	checkOneOf(t.OnRollback, "on_rollback", r, rollout.Evict, rollout.Drain, rollout.Kill)
	if t.Lease == 0 {
		return
	}
	interval := spec.Metrics.Interval.Std()
	if interval < 0 || interval > maxInterval {
		interval = 0 // told of elsewhere
	}
	checkBetween(t.Lease.Std(), max(minLease, leaseIntervals*interval), maxDuration, "lease",
		func(path, format string, args ...any) {
			r(path, format+", or 0 for never; a lease outlasts at least %d polls", append(args, leaseIntervals)...)
		})
}

func checkMetrics(m rollout.Metrics, r report) {
	checkProvider(m.Provider, "provider", r)
	checkTarget(m.Target, "target", r)
	checkBetween(m.Interval.Std(), minInterval, maxInterval, "interval", r)
	least := minNoData
	if interval := m.Interval.Std(); interval > least && interval <= maxInterval {
		least = interval
	}
	checkBetween(m.NoDataTimeout.Std(), least, maxDuration, "no_data_timeout", r)
	checkOneOf(m.OnNoData, "on_no_data", r, rollout.PolicyPause, rollout.PolicyRollback)
	checkDefinitions(m, r)
}

func checkAnalysis(a rollout.Analysis, r report) {
	checkOneOf(a.Method, "method", r, "sequential", "threshold")
	checkOneOf(a.Advance, "advance", r, "estimate", "proof", "ladder")
	if !(a.Alpha >= 1e-6 && a.Alpha <= 0.5) { // false for NaN
		r("alpha", "%v, want a chance from 0.000001 to 0.5, such as 0.01", a.Alpha)
	}
	if !(a.Beta >= 1e-6 && a.Beta <= 0.5) {
		r("beta", "%v, want a chance from 0.000001 to 0.5, such as 0.05", a.Beta)
	}
	if !(a.Floor >= 0 && a.Floor < 1) {
		r("floor", "%v, want a share from 0 to less than 1, such as 0.001", a.Floor)
	}
}

func checkStages(stages []rollout.Stage, r report) {
	if len(stages) == 0 {
		r("canary_stages", "is missing or empty, want 1 to %d stages", maxStages)
	}
	if len(stages) > maxStages {
		r("canary_stages", "%d stages, want 1 to %d", len(stages), maxStages)
		return
	}
	named := map[string]int{}
	last := rollout.Weight(0)
	for i, stage := range stages {
		path := fmt.Sprintf("canary_stages[%d]", i)
		checkStage(stage, r.under(path))
		switch first, twice := named[stage.Name]; {
		case stage.Name == "":
		case twice:
			r(path+".name", "%s is the name of canary_stages[%d] too, want every stage to have its own", quote(stage.Name), first)
		default:
			named[stage.Name] = i
		}
		if stage.Weight < last {
			r(path+".weight", "%v after %v, want a weight that does not fall", stage.Weight.Fraction(), last.Fraction())
		}
		last = max(last, stage.Weight)
	}
}

func checkStage(s rollout.Stage, r report) {
	switch {
	case s.Name == "":
		r("name", "is missing, want %s", rollout.NamePattern)
	case !rollout.ValidName(s.Name):
		r("name", "%s is not a name, want %s", quote(s.Name), rollout.NamePattern)
	}
	switch {
	case s.Mirror < 0 || s.Mirror > rollout.FullWeight:
		r("mirror", "%v, want a fraction from 0.0001 to 1 of stable's requests", s.Mirror.Fraction())
	case s.Mirror > 0 && s.Weight > 0:
		r("mirror", "%v with weight %v, want weight 0; copies and users' own requests are not the same traffic to judge by", s.Mirror.Fraction(), s.Weight.Fraction())
	case s.Weight == 0 && s.Mirror == 0:
		r("weight", "0, want a fraction from 0.0001 to 1, or mirror: 0.1 beside it to judge the canary by copies of stable's requests")
	case s.Weight < 0 || s.Weight > rollout.FullWeight:
		r("weight", "%v, want a fraction from 0.0001 to 1", s.Weight.Fraction())
	}
	checkBetween(s.Duration.Std(), 0, maxDuration, "duration", r)
	if s.MinRequests < 0 || s.MinRequests > maxRequests {
		r("min_requests", "%d, want 0 to %d", s.MinRequests, int64(maxRequests))
	}
	checkOneOf(s.Approval, "approval", r, rollout.ApprovalNone, rollout.ApprovalRequired)
	checkBetween(s.MaxHold.Std(), 0, maxDuration, "max_hold", r)
	checkOneOf(s.OnHold, "on_hold", r, rollout.PolicyPause, rollout.PolicyRollback)
	if s.Exposure() > 0 && s.Weight < rollout.FullWeight && s.Duration == 0 && s.MinRequests == 0 && len(s.Checks) == 0 && s.Approval == rollout.ApprovalNone {
		r("duration", "0 in a stage that asks nothing else, want a duration, min_requests, checks or an approval")
	}
	if len(s.Checks) > maxChecks {
		r("checks", "%d checks, want at most %d", len(s.Checks), maxChecks)
	}
}

var slackChannel = regexp.MustCompile(`^(#[^\s#<>"&,@]{1,80}|[CGD][A-Z0-9]{2,20})$`)

func checkNotify(n rollout.Notify, r report) {
	if n.Slack != nil {
		checkTarget(n.Slack.Target, "slack.target", r)
		switch {
		case n.Slack.Channel == "":
			r("slack.channel", "is missing, want a channel such as \"#agent-releases\"")
		case !slackChannel.MatchString(n.Slack.Channel):
			r("slack.channel", "%s, want a channel such as \"#agent-releases\", or its ID", quote(n.Slack.Channel))
		}
	}
	if n.Webhook != nil {
		checkTarget(n.Webhook.Target, "webhook.target", r)
	}
}
