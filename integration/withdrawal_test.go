package integration

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic/router"
	"github.com/aviary-rollouts/aviary/internal/crowd"
	"github.com/aviary-rollouts/aviary/rollout"
)

// BenchmarkWithdrawal measures how long a version that is taken back still gets requests: from the beginning of the driver's
// call, over two gateways under load, to the arrival of the last request at the version. Run it with -benchtime 50x.
func BenchmarkWithdrawal(b *testing.B) {
	var last atomic.Int64 // request at the canary, in Unix nanoseconds
	w := newWorld(b, worldOptions{behavior: perfect(), replicas: 2, noWorker: true, arrived: func(version string) {
		if version == "v42" {
			last.Store(time.Now().UnixNano())
		}
	}})
	driver, err := router.New([]string{"http://" + w.gateway.Admin, "http://" + w.second.Admin}, w.token, nil)
	w.must(err)
	users := &crowd.Crowd{Conversations: 500, Turns: 10, Talkers: 4, Pause: 4 * time.Millisecond,
		URLs: []string{w.url("support-agent"), "http://" + w.second.Proxy + "/agents/support-agent"}}
	var took []time.Duration
	w.talk(users, func() {
		run := 0
		for b.Loop() {
			run++
			route := rollout.Route{Agent: "support-agent", Stable: "v41", Canary: "v42", Weight: 5000, Revision: 1,
				Owner: fmt.Sprintf("canary/support-agent/%d", run), Lease: rollout.Duration(time.Minute), OnRollback: rollout.Evict}
			b.StopTimer()
			w.must(driver.Apply(context.Background(), route))
			w.round(users)
			route.Weight, route.Rollback, route.Revision = 0, true, 2
			b.StartTimer()
			began := time.Now()
			w.must(driver.Apply(context.Background(), route))
			b.StopTimer()
			w.round(users)
			took = append(took, max(0, time.Unix(0, last.Load()).Sub(began)))
			b.StartTimer()
		}
	})
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1)+0.5)] }
	b.ReportMetric(float64(at(0.50).Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(at(0.99).Microseconds())/1000, "p99-ms")
	b.Logf("%d withdrawals: last request p50 %s, p99 %s, latest %s after the call", len(took), at(0.50), at(0.99), took[len(took)-1])
}
