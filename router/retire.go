package router

import "time"

// maxRetired is how many versions that are gone keep their statistics: those that went last.
const maxRetired = 100

// retention is how long the statistics of a version outlive its registration: a conversation may be judged as late as a pin's
// life after its last turn, and its pin may be that old already.
func (r *Router) retention() time.Duration { return 2 * r.pinTTL }

// retire notes which statistics are of versions that are no longer registered, and frees those that have been for long. A version
// that is registered again in time goes on counting where it was. The caller holds r.mu.
func (r *Router) retire() {
	now := r.clock.Mono()
	for k := range r.stats {
		s := r.agents[k.agent]
		_, noted := r.retired[k]
		switch registered := s != nil && s.versions[k.version] != nil; {
		case registered:
			delete(r.retired, k)
		case !noted:
			r.retired[k] = now
		}
	}
	for k, since := range r.retired {
		if now-since >= r.retention() {
			r.free(k)
		}
	}
	for len(r.retired) > maxRetired {
		r.free(r.oldestRetired())
	}
}

func (r *Router) free(k statsKey) {
	delete(r.stats, k)
	delete(r.retired, k)
}

func (r *Router) oldestRetired() (oldest statsKey) {
	first := true
	for k, since := range r.retired {
		if first || since < r.retired[oldest] {
			oldest, first = k, false
		}
	}
	return oldest
}
