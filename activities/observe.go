package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// When watching says what.
const (
	beat         = 5 * time.Second        // between heartbeats, at most; the timeout is 30 s
	leastPoll    = 100 * time.Millisecond // between polls, whatever the Spec says
	calm         = time.Minute            // or six polls: good news end a slice no sooner, so that flapping does not fill the history
	calmPolls    = 6
	sourceFaults = 3                // polls in a row without an answer, and
	sourceDown   = 30 * time.Second // this long, before the source counts as down
	planeDown    = time.Minute      // without an answer, for a plane without a lease; else half the lease
	driftMemory  = time.Hour        // a change within this of one that was put back is one too many
	overtime     = time.Minute      // a slice goes on for this long while the source does not answer
	maxBusy      = time.Minute      // the longest pause that a source may ask for
	askAgain     = 10 * time.Second // after a poll without an answer, if the interval is longer
)

// Observe watches a canary for one slice, and returns early on anything to decide: see rollout.Finding. It first closes the poll
// since the slice before, so that whatever was missed counts before anything is decided, and then polls at the Spec's interval.
// After each poll it renews the lease and looks for changes by others. A retried attempt goes on from the last heartbeat.
//
// Errors: InvalidRollout for a cursor or a Spec that can't be used, WorkerDraining when this worker stops, and the context's.
// Neither the metrics source nor the data plane ends it by an error.
func (a *Activities) Observe(ctx context.Context, request rollout.ObserveRequest) (rollout.ObserveResult, error) {
	defer a.meter.enter(request.Spec.Agent, rollout.Observing)()
	o, err := a.observer(ctx, request)
	if err != nil {
		return rollout.ObserveResult{}, err
	}
	return o.run(ctx)
}

// observer watches one slice.
type observer struct {
	a        *Activities
	request  rollout.ObserveRequest
	log      log.Logger
	driver   traffic.Driver
	provider metrics.Provider
	wanted   []metrics.Metric
	config   analysis.Config
	engine   *analysis.Engine
	stopping <-chan struct{}

	p         progress
	now       time.Time // of the poll under way
	answered  bool      // the poll under way got an answer
	caughtUp  bool      // the first poll of this attempt is done
	leftOut   bool      // the last poll was not compared
	newer     error     // the source's position is of a newer worker
	notBefore time.Time // the source asked to be left alone until then
	lastFault string    // of the source
	replaced  []string  // versions that changed under their names since the rollout began
	kept      time.Time // when the route was last renewed or looked at
	chart     chart
}

func (a *Activities) observer(ctx context.Context, request rollout.ObserveRequest) (*observer, error) {
	spec := request.Spec
	o := &observer{
		a: a, request: request, stopping: activity.GetWorkerStopChannel(ctx),
		log: log.With(activity.GetLogger(ctx), "agent", spec.Agent, "canary", spec.Canary),
	}
	var err error
	if o.driver, err = a.driver(request.Route.Driver, request.Route.Target); err != nil {
		return nil, err
	}
	if o.provider, err = a.provider(spec.Metrics.Provider, spec.Metrics.Target); err != nil {
		return nil, err
	}
	if o.wanted, o.config, o.engine, err = a.judging(spec); err != nil {
		return nil, err
	}
	if o.p, err = remembered(ctx, request.Cursor); err != nil {
		return nil, err
	}
	if err := o.engine.Restore(o.p.Engine); err != nil {
		return nil, unreadable("the statistics so far", err)
	}
	o.p.begin(request, a.clock.Now())
	o.chart = chart{every: max(o.interval(), request.Slice.Std()/maxPoints)}
	return o, nil
}

func (o *observer) interval() time.Duration {
	return max(leastPoll, o.request.Spec.Metrics.Interval.Std())
}

func (o *observer) run(ctx context.Context) (rollout.ObserveResult, error) {
	for {
		if err := o.leave(ctx); err != nil {
			return rollout.ObserveResult{}, err
		}
		finding, reason := o.tick(ctx)
		switch {
		case ctx.Err() != nil:
			return rollout.ObserveResult{}, ctx.Err()
		case o.newer != nil:
			return rollout.ObserveResult{}, o.newer
		}
		if finding != "" {
			return o.result(finding, reason)
		}
		if finding, reason, err := o.wait(ctx); err != nil {
			return rollout.ObserveResult{}, err
		} else if finding != "" {
			return o.result(finding, reason)
		}
	}
}

// tick is one poll and all that follows from it. An empty finding is: watch on.
func (o *observer) tick(ctx context.Context) (rollout.Finding, string) {
	o.now = o.a.clock.Now()
	if o.poll(ctx); o.newer != nil {
		return "", ""
	}
	o.enterStage()
	report := o.engine.Peek(o.request.Stage, o.stage().MinRequests)
	if o.answered {
		o.a.meter.verdict(rollout.Verdict(report.Verdict))
		o.chart.add(&o.p.Slice.Series, o.now, o.request.Route.Weight, report)
	}
	o.heartbeat(ctx)
	// What takes the canary back comes before anything that could take time.
	if finding, reason := o.judge(report); finding != "" {
		return finding, reason
	}
	if finding, reason := o.keep(ctx); finding != "" {
		return finding, reason
	}
	for _, look := range []func(analysis.Report) (rollout.Finding, string){o.noData, o.source, o.plane, o.freeze, o.mismatch, o.ready, o.over} {
		if finding, reason := look(report); finding != "" {
			return finding, reason
		}
	}
	return "", ""
}

// poll takes in what happened since the last one.
func (o *observer) poll(ctx context.Context) {
	p := &o.p
	defer func() { p.Ticked = o.now }()
	request := metrics.Request{
		Agent: o.request.Spec.Agent, Stable: o.request.Spec.Stable, Canary: o.request.Spec.Canary, Metrics: o.wanted, Cursor: p.Source,
	}
	limit := sampleLimit
	if lease := o.request.Route.Lease.Std(); lease > 0 { // a source that hangs must not let the lease run out
		limit = min(limit, max(time.Second, lease/3))
	}
	samples, err := within(ctx, limit, func(ctx context.Context) (metrics.Samples, error) { return o.provider.Sample(ctx, request) })
	quiet := watched(p.Ticked, o.now, o.interval())
	if o.answered = err == nil; !o.answered {
		switch {
		case isNewer(err):
			o.newer = unreadable("the position in the metrics source", err)
		case ctx.Err() == nil:
			p.Silent += rollout.Duration(quiet)
			o.sourceFailed(err)
		}
		return
	}
	positioned := len(p.Source) > 0
	p.Source, p.Failed, p.Failing = samples.Cursor, 0, time.Time{}
	o.lastFault, p.Slice.SourceDown = "", ""
	if positioned {
		p.Poll++
		p.Slice.Polls++
		o.observe(samples)
		if p.Weight == o.request.Route.Weight && !o.leftOut {
			p.Slice.Requests = p.Slice.Requests.Add(samples.Requests)
		} else {
			p.Slice.Before = p.Slice.Before.Add(samples.Requests)
		}
		o.chart.take(o.config.Metrics, samples.Metrics)
		if frozen, _ := o.engine.Frozen(); !frozen && p.Slice.PlaneDown == "" {
			// What is not judged, or may have had no traffic since nobody renewed the lease, does not count as watched.
			p.Slice.Observed += rollout.Duration(min(watched(p.Sampled, o.now, o.interval()), max(0, o.now.Sub(p.Slice.Started))))
		}
	}
	p.Sampled, p.Behind = o.now, rollout.Duration(max(0, samples.Behind))
	if p.Silent += rollout.Duration(quiet); samples.Requests.Canary > 0 {
		p.Silent = 0
	}
	o.a.meter.polled(o.request.Spec.Agent, o.request.Route.Weight, o.now)
}

func (o *observer) sourceFailed(err error) {
	p := &o.p
	if p.Failed == 0 {
		p.Failing = o.now
	}
	p.Failed++
	o.lastFault = bare(err)
	o.a.meter.source(o.request.Spec.Metrics.Provider, o.request.Spec.Metrics.Target, err)
	var busy *metrics.Busy
	if errors.As(err, &busy) {
		o.notBefore = o.now.Add(min(max(busy.RetryAfter, 0), maxBusy))
	}
	if p.Failed == 1 {
		o.log.Warn("the metrics source does not answer", "error", err)
	}
	if p.Failed >= sourceFaults && o.now.Sub(p.Failing) >= sourceDown {
		p.Slice.SourceDown = o.lastFault
	}
}

// enterStage tells the statistics of the stage, once the poll that belongs to the one before is closed or can't be had: nothing of
// a stage's own is counted before.
func (o *observer) enterStage() {
	if o.caughtUp {
		return
	}
	if !o.answered && o.p.Poll > 0 && o.p.Weight != o.request.Route.Weight {
		return // the next answer holds what is left of the old weight
	}
	o.caughtUp, o.p.Weight = true, o.request.Route.Weight
	o.engine.BeginStage(o.request.Stage, int(o.p.Weight))
}

func (o *observer) evaluate() analysis.Report {
	return o.engine.Evaluate(o.request.Stage, o.stage().MinRequests)
}

func (o *observer) stage() rollout.Stage {
	return rollout.State{Spec: o.request.Spec, Stage: o.request.Stage}.StageNow()
}

// heartbeat tells Temporal that this attempt lives, and how far it has come.
func (o *observer) heartbeat(ctx context.Context) {
	if !o.a.config.NoHeartbeats && o.save() {
		activity.RecordHeartbeat(ctx, o.p)
	}
}

// save takes the statistics into the progress. It reports false when they can't be written down; the last progress stays then.
func (o *observer) save() bool {
	raw, err := o.engine.State()
	if err != nil {
		o.log.Error("the statistics can't be written down", "error", err)
		return false
	}
	o.p.Engine = raw
	return true
}

// leave is the error to leave with, if somebody wants this attempt to end.
func (o *observer) leave(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case <-o.stopping:
		o.heartbeat(ctx)
		return temporal.NewApplicationErrorWithOptions("the worker is stopping, another goes on", rollout.ErrWorkerDraining,
			temporal.ApplicationErrorOptions{NextRetryDelay: time.Millisecond, Category: temporal.ApplicationErrorCategoryBenign})
	default:
		return nil
	}
}

// next is when the next poll is due: at multiples of the interval since the slice began, however long the last poll took, and at
// the slice's end.
func (o *observer) next(now time.Time) time.Time {
	started := o.p.Slice.Started
	next := started.Add((now.Sub(started)/o.interval() + 1) * o.interval())
	if end := o.end(); end.After(now) && end.Before(next) {
		next = end
	}
	if again := now.Add(askAgain); !o.answered && again.Before(next) {
		next = again
	}
	return later(next, o.notBefore)
}

func (o *observer) end() time.Time { return o.p.Slice.Started.Add(o.request.Slice.Std()) }

// wait waits for the next poll. The lease and the heartbeat go on meanwhile.
func (o *observer) wait(ctx context.Context) (rollout.Finding, string, error) {
	next := o.next(o.a.clock.Now())
	for {
		if err := o.leave(ctx); err != nil {
			return "", "", err
		}
		now := o.a.clock.Now()
		left := next.Sub(now)
		if left <= 0 {
			return "", "", nil
		}
		select {
		case <-ctx.Done():
		case <-o.stopping:
		case <-o.a.clock.After(min(left, beat)):
		}
		if left <= beat || ctx.Err() != nil {
			continue
		}
		o.heartbeat(ctx)
		if lease := o.request.Route.Lease.Std(); lease > 0 && now.Sub(o.kept) >= lease/3 {
			o.now = o.a.clock.Now()
			if finding, reason := o.keep(ctx); finding != "" {
				return finding, reason, nil
			}
		}
	}
}

// result ends the slice.
func (o *observer) result(finding rollout.Finding, reason string) (rollout.ObserveResult, error) {
	if finding == rollout.FoundNoData {
		o.p.Silent = 0 // it was reported: the clock starts anew
	}
	report := o.evaluate()
	_, frozen := o.frozen()
	s := *o.p.Slice
	out := rollout.ObserveResult{
		Finding: finding, Reason: reason, Observed: s.Observed, Requests: s.Requests, Before: s.Before, Polls: s.Polls, Series: s.Series,
		Verdict: rollout.Verdict(report.Verdict), Gate: rollout.Verdict(report.Gate), Evidence: evidence(report), Blame: report.Blame,
		Frozen: frozen, SourceDown: s.SourceDown, PlaneDown: s.PlaneDown, PutBack: s.PutBack, Mismatch: o.doubt(report),
	}
	if !o.caughtUp { // the statistics are still of the stage before
		out.Verdict, out.Gate, out.Evidence, out.Blame = rollout.NoData, rollout.NoData, nil, ""
		out.Mismatch = o.request.Mismatch
	}
	if left := o.settles(); left > 0 { // no stage ends while its canary settles
		out.Settling = rollout.Duration(max(time.Second, left.Round(time.Second)))
		if out.Gate == rollout.Met {
			out.Gate = rollout.Undecided
		}
	}
	if !o.save() {
		return out, invalid("the statistics of this slice can't be written down")
	}
	cursor := o.p
	cursor.Slice = nil
	raw, err := json.Marshal(cursor)
	if err != nil {
		return out, invalid("the cursor of this slice can't be written down: %v", err)
	}
	out.Cursor = raw
	o.log.Debug("slice over", "finding", finding, "polls", s.Polls)
	return out, nil
}

func (o *observer) frozen() (bool, string) {
	frozen, why := o.engine.Frozen()
	if !frozen {
		return false, ""
	}
	if why == "" {
		why = fmt.Sprint(o.request.Spec.FreezeWhen)
	}
	return true, why
}
