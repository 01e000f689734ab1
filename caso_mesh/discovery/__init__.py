"""mDNS/DNS-SD on the LAN and static peers over the WAN. It yields addresses, which are hints.

It must not decide trust.
"""
