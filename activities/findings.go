package activities

import (
	"fmt"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// judge looks for what takes a canary back.
func (o *observer) judge(report analysis.Report) (rollout.Finding, string) {
	switch frozen, _ := o.frozen(); {
	case report.Safety:
		return rollout.FoundSafety, sentence(report, o.config)
	case o.request.Tolerate, !o.caughtUp:
		return "", ""
	case report.Verdict == analysis.Violated:
		return rollout.FoundViolation, sentence(report, o.config)
	case report.Gate == analysis.Violated && o.answered && !frozen && o.longEnough():
		return rollout.FoundViolation, sentence(report, o.config) // of a promotion check, at the end of the stage
	}
	return "", ""
}

// longEnough reports whether the stage has been watched for its duration.
func (o *observer) longEnough() bool {
	return o.request.Gate && o.p.Slice.Observed >= o.request.Remaining
}

// noData looks for a canary that has traffic and reports nothing. The clock stands still while a known change by somebody else
// may keep the traffic away.
func (o *observer) noData(analysis.Report) (rollout.Finding, string) {
	timeout := o.request.Spec.Metrics.NoDataTimeout
	if !o.request.Route.Exposed() || o.request.Drifted {
		o.p.Silent = 0
	}
	switch {
	case timeout == 0 || o.p.Silent < timeout:
		return "", ""
	case o.p.Failed > 0:
		return rollout.FoundNoData, fmt.Sprintf("no answer from the metrics source and no canary request for %s: %s", timeout, o.lastFault)
	}
	return rollout.FoundNoData, fmt.Sprintf("the canary has %s and no request for %s", o.request.Route.Share(), timeout)
}

// changed looks for the beginning or end of a trouble that the rollout knows, or does not know, of. The end may wait a little.
func (o *observer) changed(finding rollout.Finding, known, now, better string) (rollout.Finding, string) {
	switch {
	case known == "" && now != "":
		return finding, now
	case known != "" && now == "" && o.settled():
		return finding, better
	}
	return "", ""
}

// settled reports whether the slice has lasted long enough for news that can wait.
func (o *observer) settled() bool {
	return o.now.Sub(o.p.Slice.Started) >= min(calm, calmPolls*o.interval())
}

func (o *observer) source(analysis.Report) (rollout.Finding, string) {
	return o.changed(rollout.FoundSource, o.request.SourceDown, o.p.Slice.SourceDown, "the metrics source answers again")
}

func (o *observer) plane(analysis.Report) (rollout.Finding, string) {
	return o.changed(rollout.FoundPlane, o.request.PlaneDown, o.p.Slice.PlaneDown, "the data plane answers again")
}

func (o *observer) freeze(analysis.Report) (rollout.Finding, string) {
	_, frozen := o.frozen()
	if frozen != "" && !o.settled() {
		return "", "" // nothing advances meanwhile, and nothing is judged
	}
	return o.changed(rollout.FoundFreeze, o.request.Frozen, frozen, "judging again")
}

// doubt is why the comparison can't be trusted, or empty: the canary's share of traffic is not its weight, or a version is no
// longer what it was when the rollout began.
func (o *observer) doubt(report analysis.Report) string {
	if report.Mismatch == "" && len(o.replaced) > 0 {
		return fmt.Sprintf("%s changed under its name since the rollout began, its fingerprint is another", strings.Join(o.replaced, " and "))
	}
	return report.Mismatch
}

// mismatch looks for a comparison that began or ceased to be in doubt.
func (o *observer) mismatch(report analysis.Report) (rollout.Finding, string) {
	if !o.caughtUp {
		return "", ""
	}
	return o.changed(rollout.FoundMismatch, o.request.Mismatch, o.doubt(report), "the canary's share of traffic agrees with its weight again")
}

// ready looks for the end of the stage. All that rollout.Step would hold the stage for is asked here too: it must not be told of a
// stage that is ready and is not.
func (o *observer) ready(report analysis.Report) (rollout.Finding, string) {
	frozen, _ := o.frozen()
	s := o.p.Slice
	requests := o.request.Requests.Add(s.Requests)
	need := float64(max(1, o.stage().MinRequests))
	if !o.longEnough() || !o.answered || frozen || s.SourceDown != "" || s.PlaneDown != "" || o.doubt(report) != "" ||
		requests.Canary < need || report.Gate != analysis.Met || o.settling(o.now) {
		return "", ""
	}
	return rollout.FoundReady, "watched for long enough, and every check is met"
}

// over looks for the end of the slice. While the source does not answer it goes on a little: a slice of no use is not followed by
// another one at once. So does one that only looks for the gate while nothing has been compared yet: the stage is not held for that.
func (o *observer) over(analysis.Report) (rollout.Finding, string) {
	if o.p.Slice.PutBack != "" {
		return rollout.FoundNothing, "somebody else's change was put back"
	}
	end := o.end()
	compared := !o.leftOut && !o.settling(o.now)
	if !o.answered || o.request.Gate && o.request.Remaining <= 0 && !compared {
		end = end.Add(overtime)
	}
	if o.now.Before(end) {
		return "", ""
	}
	return rollout.FoundNothing, fmt.Sprintf("watched for %s", rollout.Duration(o.p.Slice.Observed.Std().Round(time.Millisecond)))
}
