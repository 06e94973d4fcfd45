package agent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic is what users do: conversations of a few turns each, at a bounded rate.
type Traffic struct {
	URL   string  // of the agent at the gateway, without a trailing slash
	RPS   float64 // turns per second, all users together
	Users int     // how many different users
	Turns int     // turns of one conversation, on average
	// Limit ends the traffic after so many turns; 0: when the context ends.
	Limit int64

	sent, failed atomic.Int64
	versions     sync.Map // version → *atomic.Int64
	switched     atomic.Int64
}

// Report is what the users saw.
type Report struct {
	Turns    int64            // answered or failed
	Failed   int64            // no answer, or a status of 500 and above
	Switched int64            // turns answered by another version than the turn before
	Versions map[string]int64 // answers by version
}

// Report returns what the users have seen so far.
func (t *Traffic) Report() Report {
	r := Report{Turns: t.sent.Load(), Failed: t.failed.Load(), Switched: t.switched.Load(), Versions: map[string]int64{}}
	t.versions.Range(func(k, v any) bool {
		r.Versions[k.(string)] = v.(*atomic.Int64).Load()
		return true
	})
	return r
}

// Run sends traffic until the context ends or the limit is reached, and returns when the last turn is answered.
func (t *Traffic) Run(ctx context.Context) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	const talkers = 32
	gap := time.Duration(float64(time.Second) / t.RPS)
	turns := make(chan struct{})
	var wg sync.WaitGroup
	for range talkers {
		wg.Go(func() { t.talk(client, turns) })
	}
	next := time.Now()
	for n := int64(0); (t.Limit == 0 || n < t.Limit) && ctx.Err() == nil; n++ {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
		}
		next = next.Add(gap)
		if wait := time.Until(next); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		} else if wait < -time.Second {
			next = time.Now() // overloaded: don't catch up in a burst
		}
	}
	close(turns)
	wg.Wait()
}

// talk holds one conversation after the other, a turn whenever it is its turn.
func (t *Traffic) talk(client *http.Client, turns <-chan struct{}) {
	var conversation, user, last string
	pin, left := "", 0
	for range turns {
		if left == 0 {
			left = 1 + rand.IntN(2*t.Turns-1)
			conversation, user, pin, last = fmt.Sprintf("c-%016x", rand.Uint64()), fmt.Sprintf("user-%d", rand.IntN(t.Users)), "", ""
		}
		left--
		version := t.turn(client, conversation, user, &pin)
		if version != "" && last != "" && version != last {
			t.switched.Add(1)
		}
		last = version
	}
}

// turn sends one request and returns the version that answered.
func (t *Traffic) turn(client *http.Client, conversation, user string, pin *string) string {
	defer t.sent.Add(1)
	req, err := http.NewRequest(http.MethodPost, t.URL+"/chat", strings.NewReader(`{"message":"hi"}`))
	if err != nil {
		t.failed.Add(1)
		return ""
	}
	req.Header.Set("X-Conversation-ID", conversation)
	req.Header.Set("X-User-ID", user)
	if *pin != "" {
		req.Header.Set("X-Aviary-Pin", *pin)
	}
	if rand.IntN(10) == 0 {
		req.Header.Set("Accept", "text/event-stream")
	}
	resp, err := client.Do(req)
	if err != nil {
		t.failed.Add(1)
		return ""
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 500 {
		t.failed.Add(1)
	}
	if p := resp.Header.Get("X-Aviary-Pin"); p != "" {
		*pin = p
	}
	version := resp.Header.Get("X-Agent-Version")
	n, _ := t.versions.LoadOrStore(version, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	return version
}
