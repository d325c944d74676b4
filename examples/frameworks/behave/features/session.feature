Feature: Sessions

  Scenario: An offer comes
    Given a device "cvd-1"
    When a client asks "cvd-1" for an offer
    Then it gets an offer
