package activities

import (
	"math"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
)

// maxSettle is the longest that a canary settles by itself. A rollout that needs longer says so.
const maxSettle = 10 * time.Minute

// settle is how long after a weight change nothing is compared. While nobody knows how long requests take it is 0, which still leaves out the
// poll in which the weight changed. It is false where the rollout wants none.
func (o *observer) settle() (time.Duration, bool) {
	if d := o.request.Spec.Analysis.Settle; d != nil {
		return d.Std(), *d > 0
	}
	seconds := o.engine.Settle()
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0, true
	}
	return time.Duration(min(seconds, maxSettle.Seconds()) * float64(time.Second)), true
}

// settling reports whether a poll of what happened since a moment lies in the time after a weight change that is not compared, even if only in
// part. A new canary's caches are cold, and what began before the change ends in it: both make a small arm look slow and dear.
func (o *observer) settling(since time.Time) bool {
	length, wanted := o.settle()
	return wanted && o.p.Change != nil && since.Before(o.p.Change.At.Add(length))
}

// settles is how much longer nothing is compared.
func (o *observer) settles() time.Duration {
	if !o.settling(o.now) {
		return 0
	}
	length, _ := o.settle()
	return o.p.Change.At.Add(length).Sub(o.now)
}

// begun is from when on the poll under way holds numbers. Those of a scraped source are older than the answer.
func (p *progress) begun() time.Time { return p.Sampled.Add(-p.Behind.Std()) }

// unattended reports whether the lease was not renewed for so long that the canary may have had no traffic for a part of the poll under way: its
// numbers are then of another time than stable's.
func (o *observer) unattended() bool {
	lease, kept := o.request.Route.Lease.Std(), o.p.Kept
	return lease > 0 && !o.request.Drifted && !kept.IsZero() && o.now.Sub(kept) >= lease
}

// weightKnown reports whether the canary had its weight all through the poll under way, so that its share of traffic says something. It may not
// have had it while the data plane does not answer, and has not while somebody else's change is left alone.
func (o *observer) weightKnown() bool { return o.p.Plane.IsZero() && !o.request.Drifted }

// comesBack notes that the canary has traffic again after its lease had run out.
func (o *observer) comesBack() { o.p.Change = &change{To: o.request.Route.Weight, At: o.now} }

// observe lets the statistics take a poll in. Samples that they can't count are told once a slice.
func (o *observer) observe(samples metrics.Samples) {
	p := &o.p
	o.leftOut = o.unattended() || o.settling(p.begun())
	poll := analysis.Poll{
		Number: p.Poll, Weight: int(p.Weight), Samples: samples.Metrics, Settling: o.leftOut,
		Requests:      analysis.Requests{Stable: samples.Requests.Stable, Canary: samples.Requests.Canary},
		Conversations: analysis.Requests{Stable: samples.Conversations.Stable, Canary: samples.Conversations.Canary},
	}
	if !o.weightKnown() {
		poll.Weight = 0
	}
	before := o.engine.Ignored()
	o.engine.Observe(poll)
	if n := o.engine.Ignored() - before; n > 0 {
		o.a.meter.uncounted(o.request.Spec.Metrics, n)
		if !p.Slice.Uncounted {
			p.Slice.Uncounted = true
			o.log.Warn("samples of the metrics source could not be counted", "poll", p.Poll, "samples", n)
		}
	}
}
