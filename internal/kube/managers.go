package kube

import (
	"bytes"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// changedBy is who wrote an object's spec last besides Aviary, by its managed fields; empty if nobody did, or nothing tells.
func changedBy(object *unstructured.Unstructured) string {
	var last *metav1.ManagedFieldsEntry
	for _, e := range object.GetManagedFields() {
		if e.Manager == Manager || e.Subresource != "" || e.FieldsV1 == nil || !bytes.Contains(e.FieldsV1.GetRawBytes(), []byte(`"f:spec"`)) {
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
