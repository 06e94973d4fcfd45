// Package crowd is thousands of users in conversations with an agent behind several gateways at once, as a load balancer spreads
// them: every turn may meet another replica. It watches that no conversation changes its version without being told.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Crowd holds Conversations conversations at the same time. Set the fields, then call Run.
type Crowd struct {
	URLs          []string      // of the agent at each gateway, without a trailing slash
	Conversations int           // live at the same time
	Turns         int           // of a conversation on average, before another one takes its place; 0: they never end
	Pause         time.Duration // of each talker between two turns
	Talkers       int           // turns under way at once; 0: 8
	// Silent users send nothing but their conversation's id: neither header nor cookie comes back.
	Silent bool
	// Errors says that agents may answer with a status other than 200; such a turn is an answer all the same.
	Errors bool

	mu        sync.Mutex
	report    Report
	forbidden map[string]bool
}

// Forbid makes the version's answers to turns sent from now on Late.
func (c *Crowd) Forbid(version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forbidden == nil {
		c.forbidden = map[string]bool{}
	}
	c.forbidden[version] = true
}

// Report is what the users saw so far.
type Report struct {
	Turns         int            // answered
	Conversations int            // begun
	Versions      map[string]int // answers by version
	Begun         map[string]int // conversations begun, by version
	Migrated      int            // changes of version that the answer told of
	Retried       int            // turns sent again to another replica, since theirs was gone
	Switched      []string       // changes of version that the answer did not tell of, in words
	Late          []string       // answers by a version to turns sent after Forbid had been called for it, in words
}

// conversation is one user's. One talker at a time holds it.
type conversation struct {
	id      string
	length  int // in turns; -1: it never ends
	turns   int
	version string // that answered last
	pin     string // echoed in the header
	jar     http.CookieJar
}

// Report is what the users have seen so far.
func (c *Crowd) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.report
	r.Versions, r.Begun = maps.Clone(r.Versions), maps.Clone(r.Begun)
	r.Switched, r.Late = slices.Clone(r.Switched), slices.Clone(r.Late)
	return r
}

// Run holds the conversations until ctx ends. Every conversation gets its next turn before any gets its turn after.
// Errors: a turn that no replica answered.
func (c *Crowd) Run(ctx context.Context) error {
	c.mu.Lock()
	c.report = Report{Versions: map[string]int{}, Begun: map[string]int{}}
	c.mu.Unlock()
	talkers := c.Talkers
	if talkers == 0 {
		talkers = 8
	}
	transport := &http.Transport{MaxIdleConnsPerHost: talkers}
	defer transport.CloseIdleConnections()
	waiting := make(chan *conversation, c.Conversations)
	for i := range c.Conversations {
		waiting <- c.begin(i)
	}
	errs := make(chan error, talkers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range talkers {
		go func() {
			err := c.talk(ctx, transport, waiting)
			if err != nil {
				cancel()
			}
			errs <- err
		}()
	}
	var all []error
	for range talkers {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (c *Crowd) begin(i int) *conversation {
	x := &conversation{id: fmt.Sprintf("c-%016x", rand.Uint64()), length: -1} //nolint:gosec // chance, no secret
	if c.Turns > 0 {
		x.length = 1 + rand.IntN(2*c.Turns-1) //nolint:gosec // likewise
	}
	if i%2 == 1 && !c.Silent { // every second user is a browser, the others are programs
		x.jar, _ = cookiejar.New(nil)
	}
	return x
}

// talk takes one turn after the other, of whichever conversation has waited longest.
func (c *Crowd) talk(ctx context.Context, transport http.RoundTripper, waiting chan *conversation) error {
	for ctx.Err() == nil {
		x := <-waiting
		if err := c.turn(ctx, transport, x); err != nil {
			waiting <- x
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if x.turns == x.length {
			x = c.begin(rand.IntN(2)) //nolint:gosec // likewise
		}
		waiting <- x
		if c.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(c.Pause):
			}
		}
	}
	return nil
}

// turn sends one turn to a random replica, or to the next one if that is gone, as a load balancer would.
func (c *Crowd) turn(ctx context.Context, transport http.RoundTripper, x *conversation) error {
	first := rand.IntN(len(c.URLs)) //nolint:gosec // likewise
	var last error
	for i := range 2 * len(c.URLs) {
		late := c.late()
		resp, err := c.send(ctx, transport, x, c.URLs[(first+i)%len(c.URLs)])
		if err == nil {
			c.heard(x, resp, late)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		last = err
		c.mu.Lock()
		c.report.Retried++
		c.mu.Unlock()
	}
	return fmt.Errorf("no replica answered: %w", last)
}

// late are the versions that must not answer a turn sent now.
func (c *Crowd) late() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.forbidden)
}

func (c *Crowd) send(ctx context.Context, transport http.RoundTripper, x *conversation, base string) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/chat", strings.NewReader(`{"message":"hi"}`))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Conversation-ID", x.id)
	if x.pin != "" {
		req.Header.Set("X-Aviary-Pin", x.pin)
	}
	// A jar keys its cookies by host and path; replicas differ in the port only, as behind one name.
	site := &url.URL{Scheme: "http", Host: "agents.example", Path: req.URL.Path}
	if x.jar != nil {
		for _, cookie := range x.jar.Cookies(site) {
			req.AddCookie(cookie)
		}
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && !c.Errors {
		return nil, fmt.Errorf("%s answered %s", base, resp.Status)
	}
	switch {
	case c.Silent:
	case x.jar != nil:
		x.jar.SetCookies(site, resp.Cookies())
	default:
		if pin := resp.Header.Get("X-Aviary-Pin"); pin != "" {
			x.pin = pin
		}
	}
	return resp.Header, nil
}

// heard notes which version answered, and whether that is the one of the turn before.
func (c *Crowd) heard(x *conversation, h http.Header, late map[string]bool) {
	version, from := h.Get("X-Agent-Version"), h.Get("X-Conversation-Migrated-From")
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.report
	r.Turns++
	r.Versions[version]++
	if late[version] {
		r.Late = append(r.Late, fmt.Sprintf("conversation %s: turn %d by %s", x.id, x.turns+1, version))
	}
	switch {
	case x.turns == 0:
		r.Conversations++
		r.Begun[version]++
	case version == x.version:
	case from == x.version:
		r.Migrated++
	default:
		r.Switched = append(r.Switched, fmt.Sprintf("conversation %s: turn %d by %s, after %s", x.id, x.turns+1, version, x.version))
	}
	x.turns++
	x.version = version
}
