package upstream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The bounds of Limits.
const (
	MaxConcurrency = 1_000_000
	MaxQueue       = 100_000
	MaxWait        = 10 * time.Minute
	DefaultWait    = 5 * time.Second
)

// The errors of Acquire.
var (
	ErrQueueFull    = errors.New("too many requests are under way and waiting")
	ErrQueueTimeout = errors.New("too many requests are under way, and none ended in time")
)

// Limits bound what one version is asked at once, so that a slow one can't take the router down.
type Limits struct {
	Concurrency int           // requests under way; 0: no limit
	Queue       int           // requests that wait for their turn; 0: none may
	Wait        time.Duration // how long one waits; 0: DefaultWait
}

// Check says what is wrong with the limits.
func (l Limits) Check() error {
	switch {
	case l.Concurrency < 0 || l.Concurrency > MaxConcurrency:
		return fmt.Errorf("concurrency %d: want 0 (no limit) to %d", l.Concurrency, MaxConcurrency)
	case l.Queue < 0 || l.Queue > MaxQueue:
		return fmt.Errorf("queue %d: want 0 to %d", l.Queue, MaxQueue)
	case l.Queue > 0 && l.Concurrency == 0:
		return fmt.Errorf("queue %d: want a concurrency too, without one nothing ever waits", l.Queue)
	case l.Wait < 0 || l.Wait > MaxWait:
		return fmt.Errorf("queue timeout %s: want 0 to %s", l.Wait, MaxWait)
	}
	return nil
}

// gate lets so many through at once, the others in the order they came.
type gate struct {
	mu      sync.Mutex
	limits  Limits
	live    int
	waiting list.List // of chan struct{}, closed when its turn has come
	full    int64     // requests that found the queue full
	late    int64     // requests that waited in vain
}

func (g *gate) set(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	g.wake()
}

// wake lets in whoever may come in. The caller holds g.mu.
func (g *gate) wake() {
	for g.waiting.Len() > 0 && (g.limits.Concurrency == 0 || g.live < g.limits.Concurrency) {
		turn := g.waiting.Remove(g.waiting.Front()).(chan struct{})
		g.live++
		close(turn)
	}
}

// Acquire waits for the right to send a request, which Release gives back. Errors: ErrQueueFull, ErrQueueTimeout, or ctx's.
func (s *Set) Acquire(ctx context.Context) error {
	g := &s.gate
	g.mu.Lock()
	if g.limits.Concurrency == 0 || g.live < g.limits.Concurrency {
		g.live++
		g.mu.Unlock()
		return nil
	}
	if g.waiting.Len() >= g.limits.Queue {
		g.full++
		g.mu.Unlock()
		return ErrQueueFull
	}
	turn := make(chan struct{})
	place := g.waiting.PushBack(turn)
	wait := g.limits.Wait
	g.mu.Unlock()
	if wait == 0 {
		wait = DefaultWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	err := ErrQueueTimeout
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // its turn came at the same moment
		return nil
	default:
		g.waiting.Remove(place)
		if errors.Is(err, ErrQueueTimeout) {
			g.late++
		}
		return err
	}
}

// Release ends what Acquire began.
func (s *Set) Release() {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	s.gate.live--
	s.gate.wake()
}

// TurnedAway is how many requests ended with ErrQueueFull and with ErrQueueTimeout so far.
func (s *Set) TurnedAway() (full, late int64) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.full, s.gate.late
}

// Queued is how many requests wait for their turn.
func (s *Set) Queued() int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.waiting.Len()
}
