package router

import "sync"

// memo is what a recall remembers of a conversation: the claims of the pin it has, or could have.
type memo struct {
	version        string
	rollout, epoch uint64
	expiry         int64 // Unix seconds
}

// recall remembers which version served a conversation last, for a bounded number of conversations: at least the half that were
// used last, at most twice as many.
type recall struct {
	mu       sync.Mutex
	half     int
	new, old map[uint64]memo
}

func newRecall(half int) *recall {
	return &recall{half: half, new: map[uint64]memo{}}
}

// set remembers m for key, and reports whether it knew the key already.
func (r *recall) set(key uint64, m memo) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known = r.new[key]; !known {
		_, known = r.old[key]
		if len(r.new) >= r.half {
			r.old, r.new = r.new, make(map[uint64]memo)
		}
	}
	r.new[key] = m
	return known
}

func (r *recall) get(key uint64) (memo, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.new[key]
	if !ok {
		m, ok = r.old[key]
	}
	return m, ok
}

// claims are what the pin of a conversation would say.
func (r *recall) claims(key uint64) (claims, bool) {
	m, ok := r.get(key)
	return claims{version: m.version, rollout: m.rollout, epoch: m.epoch, expiry: m.expiry, remembered: true}, ok
}

// idSet remembers a bounded number of ids: those added most recently.
type idSet struct {
	mu       sync.Mutex
	half     int
	new, old map[uint64]struct{}
}

func newIDSet(capacity int) *idSet {
	return &idSet{half: (capacity + 1) / 2, new: map[uint64]struct{}{}}
}

// add reports whether id was not there.
func (s *idSet) add(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.new[id]; ok {
		return false
	}
	if _, ok := s.old[id]; ok {
		return false
	}
	if len(s.new) >= s.half {
		s.old, s.new = s.new, make(map[uint64]struct{})
	}
	s.new[id] = struct{}{}
	return true
}
