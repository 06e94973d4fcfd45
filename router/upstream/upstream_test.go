package upstream

import (
	"context"
	"errors"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// unnoticed is for tests that don't mind who is told.
func unnoticed(*Instance, bool) {}

func urls(t testing.TB, hosts ...string) []*url.URL {
	t.Helper()
	var out []*url.URL
	for _, h := range hosts {
		u, err := url.Parse("http://" + h)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

func TestPickTakesTheLeastBusy(t *testing.T) {
	t.Parallel()
	s := New(urls(t, "a", "b", "c"), Limits{}, unnoticed)
	got := map[string]int{}
	for range 300 {
		i := s.Pick()
		i.Begin()
		got[i.URL().Host]++
	}
	for host, n := range got {
		if n != 100 {
			t.Errorf("%s has %d of 300 requests under way, want 100", host, n)
		}
	}
	for _, st := range s.Status() {
		if st.Live != 100 || !st.Healthy {
			t.Errorf("status %+v", st)
		}
	}
}

func TestPickLeavesOutWhatWasTried(t *testing.T) {
	t.Parallel()
	s := New(urls(t, "a", "b"), Limits{}, unnoticed)
	first := s.Pick()
	second := s.Pick(first)
	if second == nil || second == first {
		t.Fatalf("second pick %v after %v", second, first)
	}
	if third := s.Pick(first, second); third != nil {
		t.Errorf("third pick %v, want none", third)
	}
}

func TestUnreachableInstanceIsLeftOutAndProbed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(urls(t, "a", "b"), Limits{}, unnoticed)
		a := (*s.instances.Load())[0]
		for range failuresToEject - 1 {
			s.Unreachable(a)
		}
		if !s.Status()[0].Healthy {
			t.Error("left out too early")
		}
		s.Reached(a)
		for range failuresToEject {
			s.Unreachable(a)
		}
		for range 50 {
			if i := s.Pick(); i == a {
				t.Fatal("an unreachable instance was picked")
			}
		}
		time.Sleep(leastBackOff)
		if s.Pick() != a {
			t.Error("no probe after the back-off")
		}
		if s.Pick() == a {
			t.Error("a second probe in the same back-off")
		}
		s.Unreachable(a)
		time.Sleep(leastBackOff)
		if s.Pick() == a {
			t.Error("the back-off does not grow")
		}
		time.Sleep(leastBackOff)
		if s.Pick() != a {
			t.Error("no second probe")
		}
		s.Reached(a)
		if !s.Status()[0].Healthy {
			t.Error("a reached instance stays left out")
		}
	})
}

// TestManyWaitersDoNotLengthenTheBackOff: a busy instance that restarts loses all its waiting connections at once.
func TestManyWaitersDoNotLengthenTheBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(urls(t, "a", "b"), Limits{}, unnoticed)
		a := (*s.instances.Load())[0]
		for range 1000 {
			s.Unreachable(a)
		}
		time.Sleep(leastBackOff)
		if s.Pick() != a {
			t.Errorf("no probe after %s", leastBackOff)
		}
		for range 20 { // the back-off grows with every probe, up to its bound
			time.Sleep(mostBackOff)
			if s.Pick() != a {
				t.Fatalf("no probe after %s", mostBackOff)
			}
			s.Unreachable(a)
		}
		s.Reached(a)
		for range failuresToEject {
			s.Unreachable(a)
		}
		time.Sleep(leastBackOff)
		if s.Pick() != a {
			t.Error("an instance that was well again starts with the longest back-off")
		}
	})
}

func TestOnlyInstanceComesBackSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(urls(t, "a"), Limits{}, unnoticed)
		a := s.Pick()
		for range 50 {
			s.Unreachable(a)
		}
		if s.Pick() != nil {
			t.Fatal("an unreachable instance was picked")
		}
		if wait := s.RetryAfter(); wait <= 0 || wait > mostAlone {
			t.Errorf("worth another try in %s, want at most %s", wait, mostAlone)
		}
		time.Sleep(mostAlone)
		if s.Pick() != a {
			t.Errorf("no probe after %s", mostAlone)
		}
	})
}

func TestUpdateKeepsWhatStays(t *testing.T) {
	t.Parallel()
	s := New(urls(t, "a", "b"), Limits{}, unnoticed)
	a := (*s.instances.Load())[0]
	a.Begin()
	for range failuresToEject {
		s.Unreachable(a)
	}
	s.Update(urls(t, "c", "a"), Limits{})
	st := s.Status()
	if len(st) != 2 || st[1].Live != 1 || st[1].Healthy || st[0].Live != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(urls(t, "a"), Limits{Concurrency: 2, Queue: 2, Wait: time.Minute}, unnoticed)
		ctx := t.Context()
		for range 2 {
			if err := s.Acquire(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for n := range 2 {
			wg.Go(func() {
				if err := s.Acquire(ctx); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
			})
			synctest.Wait()
		}
		if err := s.Acquire(ctx); !errors.Is(err, ErrQueueFull) {
			t.Errorf("beyond the queue: %v", err)
		}
		if n := s.Queued(); n != 2 {
			t.Errorf("%d queued, want 2", n)
		}
		s.Release()
		synctest.Wait()
		s.Release()
		wg.Wait()
		if len(order) != 2 || order[0] != 0 {
			t.Errorf("let in in the order %v", order)
		}
	})
}

func TestGateGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(urls(t, "a"), Limits{Concurrency: 1, Queue: 5, Wait: time.Second}, unnoticed)
		if err := s.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.Acquire(t.Context()); !errors.Is(err, ErrQueueTimeout) || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if err := s.Acquire(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that went away: %v", err)
		}
		if n := s.Queued(); n != 0 {
			t.Errorf("%d still queued", n)
		}
		s.Release()
		if err := s.Acquire(t.Context()); err != nil {
			t.Errorf("after everybody left: %v", err)
		}
		// A limit that is lifted lets everybody in.
		done := make(chan error, 1)
		go func() { done <- s.Acquire(t.Context()) }()
		synctest.Wait()
		s.Update(s.URLs(), Limits{})
		if err := <-done; err != nil {
			t.Errorf("after the limit was lifted: %v", err)
		}
	})
}

func TestGateUnderLoad(t *testing.T) {
	t.Parallel()
	const limit = 4
	s := New(urls(t, "a"), Limits{Concurrency: limit, Queue: 1000, Wait: time.Minute}, unnoticed)
	var wg sync.WaitGroup
	var mu sync.Mutex
	live, most := 0, 0
	for range 64 {
		wg.Go(func() {
			for range 200 {
				if err := s.Acquire(t.Context()); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				live++
				most = max(most, live)
				mu.Unlock()
				runtime.Gosched()
				mu.Lock()
				live--
				mu.Unlock()
				s.Release()
			}
		})
	}
	wg.Wait()
	if most > limit || s.gate.live != 0 {
		t.Errorf("%d at once, want at most %d; %d left", most, limit, s.gate.live)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	s := New(urls(t, "a"), Limits{Concurrency: 10}, unnoticed)
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		_ = s.Acquire(ctx)
		i := s.Pick()
		i.Begin()
		s.Reached(i)
		i.End()
		s.Release()
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, bad := range []Limits{{Concurrency: -1}, {Concurrency: MaxConcurrency + 1}, {Queue: -1, Concurrency: 1}, {Queue: 1},
		{Concurrency: 1, Queue: MaxQueue + 1}, {Wait: -1}, {Wait: MaxWait + 1}} {
		if bad.Check() == nil {
			t.Errorf("%+v passed", bad)
		}
	}
	if err := (Limits{Concurrency: 5, Queue: 10, Wait: time.Second}).Check(); err != nil {
		t.Error(err)
	}
}

func TestLeavingOutIsTold(t *testing.T) {
	t.Parallel()
	var told []bool
	s := New(urls(t, "a"), Limits{}, func(_ *Instance, leftOut bool) { told = append(told, leftOut) })
	i := s.Pick()
	for range 5 * failuresToEject {
		s.Unreachable(i)
	}
	s.Reached(i)
	s.Reached(i)
	if want := []bool{true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
