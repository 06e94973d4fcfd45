package router

import "sync"

// recall remembers which version served a conversation last, for a bounded number of conversations: those used most recently.
type recall struct {
	mu       sync.Mutex
	half     int
	new, old map[uint64]string
}

func newRecall(capacity int) *recall {
	return &recall{half: (capacity + 1) / 2, new: map[uint64]string{}}
}

// set remembers version for key, and reports whether it knew the key already.
func (r *recall) set(key uint64, version string) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.new[key]
	if known && before == version {
		return true
	}
	if !known {
		_, known = r.old[key]
	}
	if len(r.new) >= r.half {
		r.old, r.new = r.new, make(map[uint64]string)
	}
	r.new[key] = version
	return known
}

func (r *recall) version(key uint64) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.new[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	return v, ok
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
