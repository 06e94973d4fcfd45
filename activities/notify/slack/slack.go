// Package slack tells the humans through Slack: one parent message per rollout that always shows where it stands, and every
// later notice in its thread.
//
// The token is a bot token whose bot is a member of the channel. Scopes: chat:write to post; channels:history and
// channels:read (groups:history and groups:read for private channels) to look, before a retry, for what the try before may
// have posted. Slack has no idempotency key: each message carries its notice's ID as message metadata instead, and a retry that
// may not read the channel is refused rather than posted twice. A channel given by its ID needs no *:read scope. What remains
// is a request that Slack itself delivers after the retry has looked.
package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Settings of a Notifier.
type Settings struct {
	Token          string            // bot token; required
	APIURL         string            // empty: Slack's own
	RequestTimeout time.Duration     // of one call to Slack; 0: 5 s
	Timeout        time.Duration     // of one Notify, all calls together; 0: 20 s
	Transport      http.RoundTripper // nil: the default
}

// Notifier posts to one Slack workspace. It is safe for concurrent use across rollouts.
type Notifier struct {
	api     *slack.Client
	timeout time.Duration

	mu       sync.Mutex
	channels map[string]string // name → ID, as Slack told
}

var _ notify.Notifier = (*Notifier)(nil)

// New is a Notifier. It asks nothing of Slack yet. Errors: no token.
func New(s Settings) (*Notifier, error) {
	if s.Token == "" {
		return nil, errors.New("slack: no token, want a bot token (xoxb-…)")
	}
	if s.RequestTimeout == 0 {
		s.RequestTimeout = 5 * time.Second
	}
	if s.Timeout == 0 {
		s.Timeout = 20 * time.Second
	}
	if s.APIURL == "" {
		s.APIURL = slack.APIURL
	}
	client := httpx.NewClient(httpx.Settings{Timeout: s.RequestTimeout, MaxBody: 8 << 20, Transport: s.Transport})
	return &Notifier{
		api:      slack.New(s.Token, slack.OptionAPIURL(strings.TrimSuffix(s.APIURL, "/")+"/"), slack.OptionHTTPClient(client)),
		timeout:  s.Timeout,
		channels: map[string]string{},
	}, nil
}

// thread is a rollout's parent message.
type thread struct {
	Channel string `json:"channel"`         // its ID
	TS      string `json:"ts"`              // Slack's name for a message
	First   string `json:"first,omitempty"` // the ID of the notice it was posted for
}

func (t thread) encode() notify.Thread {
	raw, _ := json.Marshal(t) // strings only: it can't go wrong
	return raw
}

// decode reads a Thread. One that is empty, or not Slack's, is no thread.
func decode(raw notify.Thread) (thread, bool) {
	var t thread
	if json.Unmarshal(raw, &t) != nil || t.Channel == "" || t.TS == "" {
		return thread{}, false
	}
	return t, true
}

// Notify posts the rollout's parent message, or brings it up to date and posts the notice in its thread. Errors: *notify.Busy,
// *notify.Rejected, or a passing fault.
func (n *Notifier) Notify(ctx context.Context, request notify.Request) (notify.Thread, error) {
	notice := request.Notice
	if notice.Notify.Slack == nil || notice.Notify.Slack.Channel == "" {
		return nil, &notify.Rejected{Err: errors.New("the notice names no slack channel")}
	}
	if _, ok := emoji[notice.Urgency]; !ok {
		return nil, &notify.Rejected{Err: fmt.Errorf("unknown urgency %q: want info, warn or alert", notice.Urgency)}
	}
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()

	retry := request.Attempt > 1
	known, ok := decode(request.Thread)
	if !ok {
		return n.begin(ctx, notice, retry)
	}
	return n.follow(ctx, notice, known, retry)
}

// begin looks for the rollout's parent message where there may be one, and posts it where there is none.
func (n *Notifier) begin(ctx context.Context, notice rollout.Notice, retry bool) (notify.Thread, error) {
	// The very first try of a rollout's start can't have been posted. Any other notice without a thread may follow one whose
	// answer was lost.
	if retry || notice.Decision.Kind != rollout.DecideStart {
		found, ok, err := n.findParent(ctx, notice)
		var rejected *notify.Rejected
		switch {
		case err != nil && (retry || !errors.As(err, &rejected)):
			return nil, err
		case ok && found.First == notice.ID:
			return found.encode(), nil
		case ok:
			return n.follow(ctx, notice, found, retry)
		}
	}
	return n.postParent(ctx, notice)
}

func (n *Notifier) postParent(ctx context.Context, notice rollout.Notice) (notify.Thread, error) {
	name := notice.Notify.Slack.Channel
	channel, ts, err := n.api.PostMessageContext(ctx, name, n.options(notice, parentBlocks(notice), kindParent, notice.ID)...)
	if err != nil {
		return nil, classify("post to slack channel "+name, err)
	}
	n.remember(name, channel)
	return thread{Channel: channel, TS: ts, First: notice.ID}.encode(), nil
}

// follow brings the parent message up to date, then posts the notice in its thread unless a try before has.
func (n *Notifier) follow(ctx context.Context, notice rollout.Notice, t thread, retry bool) (notify.Thread, error) {
	_, _, _, err := n.api.UpdateMessageContext(ctx, t.Channel, t.TS, n.options(notice, parentBlocks(notice), kindParent, t.First)...)
	switch code(err) {
	case "":
		if err != nil {
			return nil, classify("update a slack message", err)
		}
	case "message_not_found":
		return n.replace(ctx, notice, retry)
	case "edit_window_closed", "cant_update_message", "cant_update_without_metadata":
		// The workspace or a changed bot forbids the edit for good; the thread still tells everything.
	default:
		return nil, classify("update a slack message", err)
	}
	if retry {
		posted, err := n.findReply(ctx, t, notice)
		if err != nil {
			return nil, err
		}
		if posted {
			return t.encode(), nil
		}
	}
	options := append(n.options(notice, replyBlocks(notice), kindReply, notice.ID), slack.MsgOptionTS(t.TS))
	if notice.Urgency == rollout.Alert {
		options = append(options, slack.MsgOptionBroadcast()) // a thread alone wakes nobody
	}
	if _, _, err := n.api.PostMessageContext(ctx, t.Channel, options...); err != nil {
		return nil, classify("post in a slack thread", err)
	}
	return t.encode(), nil
}

// replace posts a new parent message after somebody has deleted the old one.
func (n *Notifier) replace(ctx context.Context, notice rollout.Notice, retry bool) (notify.Thread, error) {
	if retry {
		found, ok, err := n.findParent(ctx, notice)
		if err != nil {
			return nil, err
		}
		if ok && found.First == notice.ID {
			return found.encode(), nil
		}
	}
	return n.postParent(ctx, notice)
}

func (n *Notifier) options(notice rollout.Notice, blocks []slack.Block, kind, id string) []slack.MsgOption {
	return []slack.MsgOption{
		slack.MsgOptionText(summary(notice), false),
		slack.MsgOptionBlocks(blocks...),
		slack.MsgOptionParse(false),
		slack.MsgOptionDisableLinkUnfurl(),
		slack.MsgOptionDisableMediaUnfurl(),
		slack.MsgOptionMetadata(slack.SlackMetadata{
			EventType:    eventType,
			EventPayload: map[string]any{"id": id, "owner": notice.Owner, "kind": kind},
		}),
	}
}

func (n *Notifier) remember(name, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.channels) >= 1000 {
		clear(n.channels)
	}
	n.channels[strings.TrimPrefix(name, "#")] = id
}
