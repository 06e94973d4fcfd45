package slack

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// The metadata of Aviary's messages.
const (
	eventType  = "aviary_notice"
	kindParent = "rollout"
	kindReply  = "notice"
)

// Bounds of one search.
const (
	pageSize = 200
	maxPages = 10
	// skew is by how much the clock behind a decision's time may differ from Slack's.
	skew = 10 * time.Minute
)

var channelID = regexp.MustCompile(`^[CGD][A-Z0-9]{7,}$`)

// channel is the ID of the channel, which may be given by ID or by name.
func (n *Notifier) channel(ctx context.Context, name string) (string, error) {
	name = strings.TrimPrefix(name, "#")
	if channelID.MatchString(name) {
		return name, nil
	}
	n.mu.Lock()
	id := n.channels[name]
	n.mu.Unlock()
	if id != "" {
		return id, nil
	}
	params := slack.GetConversationsParameters{
		ExcludeArchived: true, Limit: 999, Types: []string{"public_channel", "private_channel"},
	}
	for range maxPages {
		page, next, err := n.api.GetConversationsContext(ctx, &params)
		if err != nil {
			return "", classify("list slack channels, to look for what was posted before", err)
		}
		for _, c := range page {
			if c.Name == name {
				n.remember(name, c.ID)
				return c.ID, nil
			}
		}
		if next == "" {
			return "", &notify.Rejected{Err: fmt.Errorf("slack channel #%s is not to be seen: want an existing channel whose member the bot is", name)}
		}
		params.Cursor = next
	}
	return "", &notify.Rejected{Err: fmt.Errorf("slack channel #%s is not among the first %d: name it by its ID", name, maxPages*params.Limit)}
}

// findParent looks for the rollout's newest parent message.
func (n *Notifier) findParent(ctx context.Context, notice rollout.Notice) (thread, bool, error) {
	id, err := n.channel(ctx, notice.Notify.Slack.Channel)
	if err != nil {
		return thread{}, false, err
	}
	params := slack.GetConversationHistoryParameters{
		ChannelID: id, Limit: pageSize, Oldest: timestamp(notice.Status.Started), IncludeAllMetadata: true,
	}
	for range maxPages { // newest first
		page, err := n.api.GetConversationHistoryContext(ctx, &params)
		if err != nil {
			return thread{}, false, classify("read the slack channel, to look for what was posted before", err)
		}
		for _, m := range page.Messages {
			if first, ok := ours(m, notice.Owner, kindParent); ok {
				return thread{Channel: id, TS: m.Timestamp, First: first}, true, nil
			}
		}
		params.Cursor = page.ResponseMetaData.NextCursor
		if !page.HasMore || params.Cursor == "" {
			break
		}
	}
	return thread{}, false, nil
}

// findReply reports whether the notice stands in the thread already.
func (n *Notifier) findReply(ctx context.Context, t thread, notice rollout.Notice) (bool, error) {
	params := slack.GetConversationRepliesParameters{
		ChannelID: t.Channel, Timestamp: t.TS, Limit: pageSize, Oldest: timestamp(notice.Decision.At), IncludeAllMetadata: true,
	}
	for range maxPages {
		page, more, next, err := n.api.GetConversationRepliesContext(ctx, &params)
		if err != nil {
			return false, classify("read the slack thread, to look for what was posted before", err)
		}
		for _, m := range page {
			if id, ok := ours(m, notice.Owner, kindReply); ok && id == notice.ID {
				return true, nil
			}
		}
		if !more || next == "" {
			break
		}
		params.Cursor = next
	}
	return false, nil
}

// ours is the notice's ID in a message of the rollout.
func ours(m slack.Message, owner, kind string) (string, bool) {
	p := m.Metadata.EventPayload
	if m.Metadata.EventType != eventType || p["owner"] != owner || p["kind"] != kind {
		return "", false
	}
	id, ok := p["id"].(string)
	return id, ok
}

// timestamp is the moment a little before t as Slack writes it; "", without a bound, for the zero time.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Add(-skew).Unix(), 10) + ".000000"
}

// code is Slack's own word for a refusal, or "" when err is none.
func code(err error) string {
	var refused slack.SlackErrorResponse
	if errors.As(err, &refused) {
		return refused.Err
	}
	return ""
}
