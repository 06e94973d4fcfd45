package router

import "sync"

// Streams are the live requests of one version, so that a rollback with Kill can end them. It is safe for concurrent use.
type Streams struct {
	mu     sync.Mutex
	killed bool
	next   uint64
	live   map[uint64]func()
}

// Add registers a live request that end cuts, and returns what to call when it is over. A version that is being killed calls
// end at once: the request was decided a moment before the rollback.
func (s *Streams) Add(end func()) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed {
		end()
		return func() {}
	}
	if s.live == nil {
		s.live = make(map[uint64]func())
	}
	id := s.next
	s.next++
	s.live[id] = end
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, id)
	}
}

// Live is how many requests are under way.
func (s *Streams) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// setKilled ends all live requests and those to come, or lets new ones live again.
func (s *Streams) setKilled(killed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if killed && !s.killed {
		for _, end := range s.live {
			end()
		}
		clear(s.live)
	}
	s.killed = killed
}
