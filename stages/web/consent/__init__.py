"""Consent: what a site says about use of its pages and pictures, each way of saying it in a file of its own."""
