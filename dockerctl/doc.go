// Package dockerctl is what a person does with docker volumes: create, import,
// restore, list, and have an agent look after one. It asks the engine, and for
// what the engine has no call for, s4's volume driver.
//
// # What holds
//
// Nothing is taken away before what replaces it is complete: an import is
// compared with the original to the last byte before that may go, and a restore
// is filled beside the volume before the two change places. What was there
// before a restore stays as a docker volume of another name.
package dockerctl
