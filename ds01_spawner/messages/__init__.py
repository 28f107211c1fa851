"""What owners of servers are told by e-mail, and a site's other programs by a webhook."""
