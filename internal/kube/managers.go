package kube

import (
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// changedBy is who wrote an object's rules last besides Aviary, by its managed fields; empty if nobody did, or nothing tells.
// Others who own the rest of the spec don't count: whoever changes a list takes it from its owners.
func (d Dialect) changedBy(object *unstructured.Unstructured) string {
	var last *metav1.ManagedFieldsEntry
	for _, e := range object.GetManagedFields() {
		if e.Manager == Manager || e.Subresource != "" || e.FieldsV1 == nil || !owns(e.FieldsV1.GetRawBytes(), d.Rules) {
			continue
		}
		if last == nil || e.Time != nil && (last.Time == nil || last.Time.Before(e.Time)) {
			last = &e
		}
	}
	if last == nil {
		return ""
	}
	out := fmt.Sprintf("%s (%s)", last.Manager, last.Operation)
	if last.Time != nil {
		out += " at " + last.Time.UTC().Format(time.RFC3339)
	}
	return out
}

// owns reports whether a set of fields, as managed fields have it, has the one at path.
func owns(fields []byte, path []string) bool {
	for _, name := range path {
		var set map[string]json.RawMessage
		if json.Unmarshal(fields, &set) != nil {
			return false
		}
		if fields = set["f:"+name]; fields == nil {
			return false
		}
	}
	return true
}
